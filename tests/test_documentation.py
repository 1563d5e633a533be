"""The commands of README and documentation: all of them are valid, and those of README and tutorials run in order.

The README and the tutorials promise that a reader can type their commands one after the other in one folder. The tests
that do so take minutes and are marked ``slow``. They shorten trainings, but change nothing else.
"""

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import cm_lightning
from cm_lightning.cli import resolve_settings
from cm_lightning.commands import OWN_COMMANDS
from cm_lightning.commands.crossval import parse as parse_crossval
from cm_lightning.commands.stages import STAGES, check_options
from cm_lightning.data import Phantom
from cm_lightning.io import read_image
from cm_lightning.main import main
from cm_lightning.parsing import CommandParser, make_parser

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "configs/README.md")),
    *(path for path in sorted(ROOT.glob("docs/**/*.md")) if "results" not in path.parts and "_build" not in path.parts),
]
# Modules with examples in their docstrings.
EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted(ROOT.glob("cm_lightning/**/*.py"))
    if ">>> " in path.read_text()
]
PROGRAM = "python -m cm_lightning "
# Options that shorten a training.
SHORT = "--trainer.max_epochs 2 --trainer.enable_progress_bar false"


def page_id(page: Path) -> str:
    """Return the name of a page in the names of tests."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language, without those that .ci/run reads by their marker."""
    text = page.read_text()
    text = re.sub(r"<!-- (install|tests) -->\n```bash\n.*?```", "", text, flags=re.DOTALL)
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]


def shell_lines(page: Path) -> list[str]:
    """Return the shell commands of a page in order, with continued lines joined."""
    lines = "\n".join(code_blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#\s.*", "", line).strip() for line in lines if line.strip() and not line.startswith("#")]


def existing_configs(arguments: list[str]) -> list[str]:
    """Replace configurations that a command of the page writes; those of the repository must exist."""
    kept = list(arguments)
    for index, (option, path) in enumerate(pairwise(arguments)):
        if option == "--config" and not path.startswith(("configs/", "benchmarks/")):
            kept[index + 1] = "configs/nerve_2ch.yaml"
    assert all((ROOT / path).is_file() for option, path in pairwise(kept) if option == "--config")
    return kept


@cache
def check_command(line: str, resolve: bool) -> None:
    """Parse a command without running it; for training commands, ``resolve`` also checks the values of all options."""
    name, *arguments = shlex.split(line.removeprefix(PROGRAM))
    arguments = existing_configs(arguments)
    if name.startswith("-") or "--help" in arguments or any(argument.endswith(".help") for argument in arguments):
        return
    if name in STAGES:
        check_options([name, *arguments])
        if resolve and not any(argument.startswith("my_") for argument in arguments):  # a class that the page defines
            resolve_settings(settings_of_fit(arguments))
    elif name == "crossval":
        parsed = parse_crossval(arguments)
        if not any("*" in argument or "{" in argument for argument in arguments):
            assert all(Path(ROOT / path).is_file() for path in parsed["overlay"] or [])
        check_options(["fit", *(item for item in parsed["fit_arguments"] if item.startswith("--"))])
    elif name == "phantom":
        parser = CommandParser(prog="phantom")
        parser.add_argument("root", type=Path)
        parser.add_class_arguments(Phantom)
        parser.parse_args(arguments)
    else:
        function = getattr(importlib.import_module(f"cm_lightning.commands.{name}"), name)
        make_parser(name, function).parse_args(arguments)


def settings_of_fit(arguments: list[str]) -> list[str]:
    """Leave out the options that only other stages have."""
    kept, skip = [], False
    for argument in arguments:
        if argument.startswith("--"):
            skip = argument.startswith(("--ckpt_path", "--ensemble", "--prediction"))
        if not skip:
            kept.append(argument)
    return kept


def check_commands(page: Path, resolve: bool) -> None:
    for line in shell_lines(page):
        if line.startswith(PROGRAM):
            check_command(line, resolve)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_options_of_commands_exist(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    check_commands(page, resolve=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_of_commands_are_valid(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    check_commands(page, resolve=True)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(\s*([^)#\s]+)[^)]*\)", text):
        if not re.match(r"https?:|mailto:", target) and "auto_gallery" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_has_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_readme_lists_every_subcommand():
    table = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in table for name in (*STAGES, *OWN_COMMANDS))


def test_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cm_lightning.__version__
    assert f"## {cm_lightning.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_are_the_versions_of_the_published_reports():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = dict(line.split("==") for line in lines if not line.startswith("#"))
    for report in (ROOT / "benchmarks" / "results").glob("controls_*/report.md"):
        for name in ("torch", "monai", "pytorch-lightning", "numpy", "scipy"):
            assert set(re.findall(rf"\b{name} ([\d.]+)", report.read_text())) == {versions[name]}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings_are_correct(name):
    assert not doctest.testmod(importlib.import_module(name)).failed


def write_own_frames(folder: Path, values: dict[int, int]) -> None:
    """Write images and labels of phantoms as PNG files with black bands, in the layout of own data."""
    volumes = folder / "volumes"
    Phantom("muscle", patients=4, size=(48, 48, 24), spacing=(1.2, 1.2, 4.8)).write(volumes)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for patient, path in enumerate(sorted(volumes.glob("*/*/x1.mha"))):
        image, label = (read_image(path.with_name(name)).array for name in ("x1.mha", "masksX1.mha"))
        for frame in (6, 12, 18):
            pixels = {"images": image[:, :, frame].T, "masks": np.vectorize(values.get)(label[:, :, frame].T)}
            for kind, array in pixels.items():
                padded = np.pad(np.kron(array, np.ones((3, 3))), 10).astype(np.uint8)
                Image.fromarray(padded).save(folder / kind / f"patient{patient}_{frame:02d}.png")


def run_page(page: Path, folder: Path) -> None:
    """Run the commands of a page in a folder that looks like the repository to them."""
    for name in ("configs", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    python = f"{shlex.quote(sys.executable)} -m cm_lightning "
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    for line in shell_lines(page):
        command = line.replace(PROGRAM, python)
        if line.startswith((f"{PROGRAM}fit", f"{PROGRAM}crossval")):
            command += f" {SHORT}"
        result = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{line}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"


@pytest.mark.slow
def test_commands_of_the_readme_run(tmp_path):
    write_own_frames(tmp_path / "data" / "my_images", {0: 0, 100: 1, 150: 2, 200: 3})
    (tmp_path / "data" / "new_images").mkdir()
    for path in sorted((tmp_path / "data" / "my_images" / "images").iterdir())[:2]:
        (tmp_path / "data" / "new_images" / f"new_{path.name}").write_bytes(path.read_bytes())
    run_page(ROOT / "README.md", tmp_path)
    assert len(list((tmp_path / "outputs/my_images/fold0/predictions/mirrored").glob("new_*_segmentation.png"))) == 2
    assert (tmp_path / "report" / "report.html").is_file()
    assert len(list((tmp_path / "maps").rglob("new_*.png"))) >= 2


@pytest.mark.slow
def test_commands_of_the_phantom_tutorial_run(tmp_path):
    run_page(ROOT / "docs" / "tutorials" / "phantom.md", tmp_path)
    assert (tmp_path / "outputs" / "variability" / "report.html").is_file()


@pytest.mark.slow
def test_commands_of_the_tutorial_on_screens_run(tmp_path):
    write_own_frames(tmp_path / "data" / "usgra_seg", {0: 0, 100: 1, 150: 2, 200: 2})
    run_page(ROOT / "docs" / "tutorials" / "screens.md", tmp_path)
    assert "nerve: 1" in (tmp_path / "usgra.yaml").read_text()
    assert (tmp_path / "outputs" / "nerve_report" / "report.html").is_file()


@pytest.mark.parametrize("name", ["new_network", "new_loss"])
def test_code_of_the_how_to_guide_trains(name, tmp_path, muscle_set, monkeypatch, no_pictures):
    page = ROOT / "docs" / "howto" / f"{name}.md"
    (module,) = re.findall(r"Save this as `(\w+).py`", page.read_text())
    (code,) = code_blocks(page, "python")
    (tmp_path / f"{module}.py").write_text(code)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small = (
        f"--data.root={muscle_set} --data.phantom=null --data.spatial_size=[16,16,16] --uncertainty.cases=0 "
        "--trainer.limit_train_batches=1 --trainer.enable_model_summary=false"
    )
    lines = [line for line in shell_lines(page) if line.startswith(PROGRAM)]
    assert lines
    for line in lines:
        main(shlex.split(f"{line.removeprefix(PROGRAM)} {small} {SHORT}"))
