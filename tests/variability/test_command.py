"""Command ``variability``: comparison of trained networks with simulated raters."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from cm_lightning.data import Phantom
from cm_lightning.data.phantom import RaterModel
from cm_lightning.main import main
from tests.conftest import arguments_in, blank_figures


class Touch:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def trained_once(muscle_set, tmp_path_factory):
    """Return trained networks with one and with two input channels, one fold each, and the data with raters."""
    folder = tmp_path_factory.mktemp("variability")
    root = folder / "data"
    shutil.copytree(muscle_set, root)
    phantom = Phantom("muscle", 11, (16, 24, 16), (3.0, 2.4, 6.0), raters=RaterModel(repeats=4, sd=3.0))
    phantom.write(root)
    small_network = ["--model.network_options={channels: [4, 8], strides: [2]}", "--trainer.max_epochs=1"]
    no_pictures = ["--pictures.cases=0", "--uncertainty.cases=0", f"--data.root={root}"]
    arguments = [*arguments_in(folder, muscle_set), *small_network, *no_pictures]
    with blank_figures():
        for mode in ("1ch", "2ch"):
            main(["fit", *arguments, f"--model.input_mode={mode}", f"--experiment={mode}_seed0"])
    return folder / "outputs", root


@pytest.fixture
def trained_runs(trained_once, tmp_path):
    """Return a copy of the runs, which tests may change, and the data with raters."""
    outputs, root = trained_once
    shutil.copytree(outputs, tmp_path / "outputs")
    return tmp_path / "outputs", root


def test_page_with_and_without_raters(trained_runs, tmp_path, capsys):
    runs, root = trained_runs
    output = tmp_path / "page"
    arguments = ["variability", str(runs), "--output", str(output), "--samples", "3", "--frames", "2"]
    with_raters = [*arguments, "--raters", str(root / "ratersTr"), "--baseline", "1ch"]
    main(with_raters)
    html, markdown = (output / "report.html").read_text(), (output / "report.md").read_text()
    assert "## Confidence and rater variability" in markdown
    assert "data:image/png;base64" in html
    assert {path.stem for path in (output / "figures").glob("*.png")} == {
        *("entropy", "contours", "reliability", "depth", "convergence", "question")
    }
    measures = pd.read_csv(output / "measures.csv")
    assert set(measures["model"]) == {"1ch", "2ch"}
    assert measures.groupby(["model", "case"])["frame"].nunique().eq(2).all()
    energy = measures[measures["measure"] == "energy_labels"].groupby(["case", "frame"])["value"]
    assert energy.nunique().eq(1).all()  # depends only on the labels and not on the model
    assert pd.read_csv(output / "bins.csv")["count"].sum() > 0

    modified = {path: path.stat().st_mtime_ns for path in (output / "samples").rglob("*.npz")}
    assert len(modified) == 2 * measures.groupby("case")["frame"].nunique().sum()
    with blank_figures():
        main([*with_raters, "--batch_size", "2"])  # the batch size does not affect results
    assert {path: path.stat().st_mtime_ns for path in (output / "samples").rglob("*.npz")} == modified
    damaged = next(iter(modified))
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"npz cannot be read: .*Delete it to sample the image again"):
        main(with_raters)
    damaged.unlink()

    # The deleted file is sampled again, and damaged experiments are listed and left out.
    shutil.copytree(runs / "1ch_seed0", runs / "other_seed0")
    shutil.rmtree(runs / "other_seed0" / "fold0" / "checkpoints")
    for name in ("code_seed0", "yaml_seed0", "solver_seed0"):
        shutil.copytree(runs / "1ch_seed0", runs / name)
    with_code = runs / "code_seed0" / "fold0" / "checkpoints" / "best.ckpt"
    torch.save({**torch.load(with_code, weights_only=False), "callbacks": Touch(tmp_path / "executed")}, with_code)
    (runs / "yaml_seed0" / "fold0" / "config.yaml").write_text("data: [\n")
    config = runs / "solver_seed0" / "fold0" / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "solver": {"alpha": "high"}}))
    with blank_figures():
        main(with_raters)
    assert damaged.is_file()
    markdown = (output / "report.md").read_text()
    assert "does not exist; expected one written by fit" in markdown
    assert "may run code, and was not loaded" in markdown
    assert not (tmp_path / "executed").exists()
    assert "config.yaml is not valid YAML" in markdown
    assert "solver_seed0/fold0/config.yaml are invalid" in markdown
    with blank_figures():
        main([*arguments, "--samples", "2"])
    markdown = (output / "report.md").read_text()
    assert "Detection of error" in markdown
    assert "Confidence and rater variability" not in markdown
    assert not (output / "figures" / "question.png").exists()


def test_invalid_comparisons_raise_errors_before_sampling(trained_runs, tmp_path):
    runs, _ = trained_runs
    arguments = ["variability", str(runs), "--output", str(tmp_path / "page"), "--samples", "2"]
    with pytest.raises(ValueError, match="There is no model 'unknown' to compare"):
        main([*arguments, "--baseline", "unknown"])
    with pytest.raises(ValueError, match="No test case of the readable experiments has labels in"):
        main([*arguments, "--raters", str(tmp_path / "missing")])
    assert not list((tmp_path / "page").rglob("*.npz"))
    shutil.copytree(runs / "1ch_seed0", tmp_path / "copy" / "1ch_seed0")
    with pytest.raises(ValueError, match=r"the same model and seed: 1ch \(seed 0\)"):
        main(["variability", str(tmp_path / "copy"), *arguments[1:]])

    # The split has other test cases, so that these cases may have been used in training.
    plan = {"test_cases": [["other_x1"], [], []]}
    for fold in runs.glob("*/fold0"):
        (fold / "test_plan.json").write_text(json.dumps(plan))
    with pytest.raises(ValueError, match=r"test cases of .* differ from .*may have been used in training"):
        main(arguments)
