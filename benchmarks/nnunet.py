"""nnU-Net and the strong configurations on the same split, with the same number of training samples.

    python benchmarks/nnunet.py nerves DATA/usgra_seg [--methods nnunet strong_1ch strong_2ch loading] [--seeds 0 1 2]
        [--size 128 128] [--epochs 60] [--threads 1] [--folder outputs/nnunet]
        [--output benchmarks/results/nnunet.md]

The first run makes an environment with nnU-Net in ``--folder``. The cases for training, validation and test are those
of fold 0 of the data module, in folds of patients or of groups of near-duplicate images. Both methods get the same
pixels, which our data module has resized, and both are measured on the grid of the files. A job is one method with one
seed. Finished jobs are not repeated, so that an interrupted command can be started again, also with further methods
and seeds; the page is written from all finished jobs of all data sets. Without a data set, only the page is written.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image
from scipy import stats

from cm_lightning.data import Augmentation, UltrasoundDataModule
from cm_lightning.metrics import case_rows
from cm_lightning.metrics.summary import patient_means
from cm_lightning.tasks.native import resize_linearly
from cm_lightning.writing import write_text

ROOT = Path(__file__).parents[1]
# The tested versions, which are installed together, so that nnU-Net does not replace torch.
PACKAGES = ("torch==2.13.0", "nnunetv2==2.8.1")
METRICS = {"dice": "Dice", "hd95": "HD95", "nsd": "NSD"}
# Steps of an epoch of nnU-Net, whose samples determine the length of the training of all methods.
STEPS = 25


@dataclass(frozen=True)
class DataSet:
    """A data set of the comparison.

    Attributes:
        number: Number of the data set for nnU-Net.
        size: Grid of both methods, ``(depth, lateral[, elevation])``.
        options: Options of the data module.
    """

    number: int
    size: tuple[int, ...]
    options: dict[str, Any]

    @property
    def configuration(self) -> str:
        """Configuration of nnU-Net."""
        return f"{'2d' if len(self.size) == 2 else '3d'}{'' if len(self.size) == 2 else '_fullres'}"

    def module(self, root: Path, folder: Path) -> UltrasoundDataModule:
        """Return the data module, without confidence maps."""
        return UltrasoundDataModule(
            root, spatial_size=list(self.size), confidence_mode="none", cache_dir=folder / "cache", **self.options
        )

    def arguments(self, root: Path, folder: Path) -> list[str]:
        """Return the options of the command line for the same data."""
        options = {**self.options, "root": str(root), "cache_dir": str(folder / "cache"), "spatial_size": self.size}
        return [
            f"--data.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()
        ]


FRAMES: dict[str, Any] = {"layout": "folder", "axes": "depth lateral", "image_folds": True, "n_folds": 5}
DATA_SETS = {
    "nerves": DataSet(801, (128, 128), {**FRAMES, "classes": {"nerve": 1, "vessel": 2}, "domain": "linear"}),
    "aponeuroses": DataSet(802, (128, 128), {**FRAMES, "classes": {"aponeurosis": 1}, "domain": "whole"}),
    "prostates": DataSet(
        803, (48, 64, 48), {"layout": "folder", "classes": {"prostate": 1}, "n_folds": 3, "patient_pattern": "(.+)"}
    ),
}


def make_environment(folder: Path) -> Path:
    """Make an environment with nnU-Net if there is none, and return its Python."""
    python = folder / "env" / "bin" / "python"
    done = folder / "env" / "complete"
    if not done.is_file():
        venv.create(folder / "env", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        done.touch()
    return python


def export(data: UltrasoundDataModule, raw: Path) -> dict[str, list[str]]:
    """Write the cases of a fold as nnU-Net's raw data, on the grid of the network, and return the split."""
    ending = ".png" if data.spatial_dims == 2 else ".nii.gz"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    split: dict[str, list[str]] = {}
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    for subset, loader in loaders.items():
        split[subset] = []
        for batch in loader:
            for index, case in enumerate(batch["case"]):
                split[subset].append(case)
                image = raw / ("imagesTs" if subset == "test" else "imagesTr") / f"{case}_0000{ending}"
                write_array(image, batch["image"][index, 0].mul(255).round().byte().numpy(), batch["spacing"][index])
                if subset != "test":
                    label = raw / "labelsTr" / f"{case}{ending}"
                    write_array(label, batch["label"][index, 0].numpy(), batch["spacing"][index])
    labels = {"background": 0, **{name: index for index, name in enumerate(data.classes, start=1)}}
    count = len(split["train"]) + len(split["val"])
    description = {"channel_names": {"0": "ultrasound"}, "labels": labels, "numTraining": count, "file_ending": ending}
    (raw / "dataset.json").write_text(json.dumps(description))
    return {subset: split[subset] for subset in ("train", "val")}


def write_array(path: Path, array: np.ndarray[Any, Any], spacing: torch.Tensor) -> None:
    """Write a frame or a volume."""
    if array.ndim == 2:
        Image.fromarray(array).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing.tolist(), 1.0])), path)


def run(command: Sequence[str | Path], log: Path, threads: int, **environment: str) -> dict[str, float]:
    """Run a command with few threads; return its duration, CPU time (both in s) and largest memory in GB."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    variables = {**os.environ, **limits, "WANDB_MODE": "disabled", **environment}
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen([*map(str, command)], stdout=file, stderr=subprocess.STDOUT, env=variables)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed; see {log}.")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 2**20}


@dataclass(frozen=True)
class Job:
    """One method with one seed.

    Attributes:
        name: Name of the data set.
        data_set: The data set.
        root: Its folder.
        work: Folder of what all jobs share.
        folder: Folder of the job.
        seed: Seed.
        epochs: Number of epochs of nnU-Net.
        threads: Number of threads.
    """

    name: str
    data_set: DataSet
    root: Path
    work: Path
    folder: Path
    seed: int
    epochs: int
    threads: int

    @property
    def base(self) -> Path:
        """Folder of nnU-Net's raw and preprocessed data."""
        return self.work / "data" / f"{self.name}_{'x'.join(map(str, self.data_set.size))}"

    @property
    def title(self) -> str:
        """Name of the data set for nnU-Net."""
        return f"Dataset{self.data_set.number}_{self.name}"

    def module(self) -> UltrasoundDataModule:
        """Return the data module."""
        return self.data_set.module(self.root, self.work)

    def environment(self, processes: int) -> dict[str, str]:
        """Return environment variables of nnU-Net."""
        folders = {"raw": self.base / "raw", "preprocessed": self.base / "preprocessed", "results": self.folder}
        return {
            **{f"nnUNet_{name}": str(folder) for name, folder in folders.items()},
            "nnUNet_n_proc_DA": str(processes),
            "nnUNet_compile": "f",
            "nnUNet_def_n_proc": "1",
        }


def preprocess(job: Job, python: Path) -> dict[str, Any]:
    """Export, plan and preprocess a data set for nnU-Net, if this has not been done, and return the plan."""
    preprocessed = job.base / "preprocessed" / job.title
    if not (preprocessed / "splits_final.json").is_file():
        split = export(job.module(), job.base / "raw" / job.title)
        plan = [python.with_name("nnUNetv2_plan_and_preprocess"), "-d", str(job.data_set.number), "-np", "1"]
        plan += ["-c", job.data_set.configuration]
        run(plan, job.base / "plan.txt", job.threads, **job.environment(1))
        (preprocessed / "splits_final.json").write_text(json.dumps([split]))
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    return plans["configurations"][job.data_set.configuration]


def run_nnunet(job: Job, python: Path) -> None:
    """Train nnU-Net, and measure its predictions with and without mirroring."""
    script = ROOT / "benchmarks" / "nnunet_side.py"
    command = [python, script, job.folder, str(job.data_set.number), job.data_set.configuration, f"--seed={job.seed}"]
    command += [f"--epochs={job.epochs}", f"--steps={STEPS}", f"--threads={job.threads}"]
    # Augmentation in the same process, as on our side.
    used = run(command, job.folder / "log.txt", job.threads, **job.environment(0))
    times = json.loads((job.folder / "times.json").read_text())
    data = job.module()
    data.prepare_data()
    data.setup("test")
    rows = []
    for batch in data.test_dataloader():
        for variant in ("plain", "mirrored"):
            with np.load(job.folder / variant / f"{batch['case'][0]}.npz") as file:
                stored = torch.from_numpy(file["probabilities"]).float()
            # nnU-Net stores frames as volumes of one slice, and volumes in the reverse order of the axes.
            maps = stored[:, 0] if data.spatial_dims == 2 else stored.permute(0, 3, 2, 1)
            label = batch["native_label"][0, 0]
            prediction = torch.stack([resize_linearly(part, label.shape) for part in maps]).argmax(0).to(torch.uint8)
            spacing = batch["native_spacing"][0].tolist()
            columns = {"case": batch["case"][0], "patient": batch["patient"][0], "variant": variant}
            rows += case_rows(prediction, label, list(data.classes), spacing, **columns)
    pd.DataFrame(rows).to_csv(job.folder / "rows.csv", index=False)
    finish(job, {**used, **times})


def run_strong(job: Job, samples: int, mode: str) -> None:
    """Train a strong configuration as long as nnU-Net, and measure its predictions with and without mirroring."""
    config = ROOT / "configs" / f"strong_{len(job.data_set.size)}d.yaml"
    arguments = [f"--config={config}", *job.data_set.arguments(job.root, job.work), f"--output_dir={job.folder}"]
    arguments += ["--experiment=run", f"--seed_everything={job.seed}", f"--model.input_mode={mode}"]
    arguments += ["--pictures.cases=0", "--uncertainty.cases=0", "--trainer.enable_progress_bar=false"]
    arguments.append(f"--data.confidence_mode={'native' if mode == '2ch' else 'none'}")
    cases = len(job.module().cases_of("train"))
    epochs = round(samples / cases)
    arguments.append(f"--trainer.max_epochs={epochs}")
    cm_lightning = [sys.executable, "-m", "cm_lightning"]
    used = run([*cm_lightning, "fit", *arguments, "--overwrite=true"], job.folder / "fit.txt", job.threads)
    times: dict[str, Any] = {"fit_s": used["seconds"], "fit_cpu_s": used["cpu"], "samples": epochs * cases}
    rows = []
    for variant, axes in (("plain", "[]"), ("mirrored", "[lateral]")):
        test = [*cm_lightning, "test", *arguments, "--ckpt_path=last", f"--model.mirroring={axes}"]
        times[f"{variant}_s"] = run(test, job.folder / f"test_{variant}.txt", job.threads)["seconds"]
        measured = pd.read_csv(job.folder / "run" / "fold0" / "test_metrics.csv", dtype={"case": str})
        rows.append(measured[measured["postprocessing"] == "none"].assign(variant=variant))
    pd.concat(rows).to_csv(job.folder / "rows.csv", index=False)
    weights = torch.load(job.folder / "run" / "fold0" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    times["parameters"] = sum(tensor.numel() for tensor in weights.values())
    finish(job, {**used, **times})


def measure_loading(job: Job, epochs: int = 5) -> None:
    """Measure how many training cases per second are loaded, with and without augmentation, but without a network."""
    torch.set_num_threads(job.threads)
    config = ROOT / "configs" / f"strong_{len(job.data_set.size)}d.yaml"
    data = job.module()
    data.batch_size = 8
    data.augmentation = Augmentation(**yaml.safe_load(config.read_text())["data"]["augmentation"])
    data.prepare_data()
    data.setup("fit")
    speeds = {}
    for name, process in (("loaded", lambda batch: batch), ("augmented", data.augment)):
        start, cases = time.perf_counter(), 0
        for _ in range(epochs):
            for batch in data.train_dataloader():
                cases += len(process(batch)["case"])
        speeds[name] = cases / (time.perf_counter() - start)
    finish(job, speeds)


def finish(job: Job, times: dict[str, Any]) -> None:
    """Write the times of a job, which mark it as finished."""
    facts = {"name": job.name, "size": job.data_set.size, "seed": job.seed, "epochs": job.epochs}
    write_text(job.folder / "facts.json", json.dumps({**facts, "threads": job.threads, **times}))


METHODS = {"nnunet": "nnU-Net", "strong_1ch": "strong, 1ch", "strong_2ch": "strong, 2ch"}


def read_jobs(folder: Path) -> pd.DataFrame:
    """Read the metrics of all finished jobs, and compute the mean of every patient."""
    tables = []
    for file in sorted(folder.glob("*/*/facts.json")):
        if not file.with_name("rows.csv").is_file():
            continue
        facts = json.loads(file.read_text())
        rows = pd.read_csv(file.with_name("rows.csv"), dtype={"case": str, "patient": str})
        means = patient_means(rows[rows["metric"].isin(METRICS)], by=["variant"])
        columns = {"comparison": file.parent.parent.name, "method": file.parent.name.rpartition("_")[0]}
        tables.append(means.assign(**columns, seed=facts["seed"], file=str(file)))
    if not tables:
        raise SystemExit(f"No job in {folder} is finished.")
    return pd.concat(tables, ignore_index=True)


def interval(values: pd.Series) -> str:
    """Return a mean with its 95 percent interval over patients or groups."""
    known = values.dropna()
    half = stats.t.ppf(0.975, len(known) - 1) * known.sem()
    return f"{known.mean():.3f} ({known.mean() - half:.3f} to {known.mean() + half:.3f})"


def page(table: pd.DataFrame) -> str:
    """Return the page with all comparisons."""
    lines = ["# nnU-Net and the strong configurations", ""]
    lines += [
        f"Machine: {os.cpu_count()} CPU cores ({processor()}), beside other programs, so that CPU time is more "
        "reliable than wall time. Values are means over patients or groups of near-duplicate images (averaged over "
        "seeds first), with 95 % intervals over them; an empty prediction or label counts as the worst value. HD95 and "
        "NSD (tolerance 2) are in the unit of the files. Mirrored: the average of mirrored predictions; nnU-Net "
        "mirrors along all axes, the strong configurations only laterally.",
        "",
    ]
    for _, part in table.groupby("comparison", sort=False):
        facts = {file: json.loads(Path(file).read_text()) for file in part["file"].unique()}
        first = next(iter(facts.values()))
        patients = part["patient"].nunique()
        size = " x ".join(map(str, first["size"]))
        seeds = " ".join(map(str, sorted({fact["seed"] for fact in facts.values()})))
        lines += [f"## {first['name'].capitalize()}, {size}, {first['epochs']} epochs of {STEPS} steps", "", "```bash"]
        lines += [
            f"python benchmarks/nnunet.py {first['name']} DATA --size {size.replace(' x', '')} --epochs "
            f"{first['epochs']} --threads {first['threads']} --seeds {seeds} --methods "
            f"{' '.join(part['method'].unique())}"
        ]
        lines += ["```", ""]
        lines += ["| method | seeds | parameters | samples | training: CPU min | wall min | memory (GB) |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for method, own in part.groupby("method", sort=False):
            used = [facts[file] for file in own["file"].unique()]
            mean = {key: float(np.mean([fact[key] for fact in used])) for key in ("fit_cpu_s", "fit_s", "memory")}
            lines.append(
                f"| {METHODS[method]} | {', '.join(str(fact['seed']) for fact in used)} | "
                f"{used[0]['parameters'] / 1e6:.1f} M | {used[0]['samples']:,} | {mean['fit_cpu_s'] / 60:.1f} | "
                f"{mean['fit_s'] / 60:.1f} | {mean['memory']:.2f} |"
            )
        for file in sorted(Path(part["file"].iloc[0]).parents[1].glob("loading_*/facts.json")):
            speeds = json.loads(file.read_text())
            lines += [
                "",
                f"Without a network, our data module loads {speeds['loaded']:.0f} training cases per second, and "
                f"{speeds['augmented']:.0f} with augmentation (seed {speeds['seed']}).",
            ]
        classes = [name for name in part["class"].unique() if name != "mean"]
        lines += ["", f"{patients} test groups:", ""]
        lines += [f"| method | {' | '.join(f'Dice, {name}' for name in ['mean', *classes])} | HD95 | NSD |"]
        lines += ["| --- |" + " --- |" * (len(classes) + 3)]
        values = part.groupby(["method", "variant", "metric", "class", "patient"])["value"].mean()
        for method in part["method"].unique():
            for variant in ("plain", "mirrored"):
                own = values[method, variant]
                cells = [interval(own["dice", name]) for name in ["mean", *classes]]
                cells += [interval(own[metric, "mean"]) for metric in ("hd95", "nsd")]
                lines.append(
                    f"| {METHODS[method]}{', mirrored' if variant == 'mirrored' else ''} | {' | '.join(cells)} |"
                )
        pairs = [("strong_1ch", "nnunet"), ("strong_2ch", "nnunet"), ("strong_2ch", "strong_1ch")]
        known = set(part["method"])
        pairs = [pair for pair in pairs if known.issuperset(pair)]
        lines += ["", "Paired differences of the mirrored predictions:", ""] if pairs else []
        lines += ["| difference | Dice | HD95 | NSD |", "| --- | --- | --- | --- |"] if pairs else []
        for one, other in pairs:
            cells = []
            for metric in METRICS:
                a, b = (values[method, "mirrored", metric, "mean"] for method in (one, other))
                cells.append(interval(a - b))
            lines.append(f"| {METHODS[one]} minus {METHODS[other]} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    """Run jobs that are not finished, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", choices=DATA_SETS)
    parser.add_argument("root", nargs="?", type=Path)
    parser.add_argument("--methods", nargs="+", default=["nnunet", "strong_1ch", "strong_2ch", "loading"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size", nargs="+", type=int, help="size of the grid, by default that of the data set")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of nnU-Net, of 25 steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("outputs/nnunet"))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "nnunet.md")
    options = parser.parse_args()
    work = options.folder.resolve()
    for seed in options.seeds if options.data else ():
        for method in options.methods:
            data_set = DATA_SETS[options.data]
            data_set = replace(data_set, size=tuple(options.size or data_set.size))
            name = f"{options.data}_{'x'.join(map(str, data_set.size))}_{options.epochs}"
            folder = work / "jobs" / name / f"{method}_seed{seed}"
            if (folder / "facts.json").is_file():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            root = options.root.resolve()
            job = Job(options.data, data_set, root, work, folder, seed, options.epochs, options.threads)
            python = make_environment(work)
            plan = preprocess(job, python)
            if method == "loading":
                measure_loading(job)
            elif method == "nnunet":
                run_nnunet(job, python)
            else:
                run_strong(job, options.epochs * STEPS * plan["batch_size"], method.removeprefix("strong_"))
    write_text(options.output, page(read_jobs(work / "jobs")))


if __name__ == "__main__":
    main()
