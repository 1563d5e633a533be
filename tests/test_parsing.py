"""Typed functions as subcommands, and parsers' messages as sentences."""

import re
from pathlib import Path
from typing import Literal

import pytest

from cm_lightning.main import main
from cm_lightning.parsing import check_exclusive, explain, run_function
from tests.conftest import CONFIGS


def measure(
    runs: list[Path],
    consensus: Literal["majority", "staple"] = "majority",
    seeds: list[int] | None = None,
    overwrite: bool = False,
    share: float = 0.5,
) -> tuple:
    """Measure runs.

    Args:
        runs: Folders of runs.
        consensus: How labels are made one.
        seeds: Which seeds.
        overwrite: Replace earlier results.
        share: Which share.
    """
    return runs, consensus, seeds, overwrite, share


def named(*, entity: str, dry_run: Path | None = None) -> tuple:
    """Show runs.

    Args:
        entity: Whose.
        dry_run: Where to.
    """
    return entity, dry_run


def test_arguments_are_those_of_the_function():
    assert run_function("measure", measure, ["a", "b"]) == ([Path("a"), Path("b")], "majority", None, False, 0.5)
    argv = ["a", "--seeds", "0", "1", "--overwrite", "--consensus=staple", "--share", "0.25"]
    assert run_function("measure", measure, argv) == ([Path("a")], "staple", [0, 1], True, 0.25)
    assert run_function("measure", measure, ["a", "--overwrite", "false"])[3] is False
    assert run_function("named", named, ["--entity", "team"]) == ("team", None)


def test_configuration_and_its_print(tmp_path, capsys):
    file = tmp_path / "measure.yaml"
    with pytest.raises(SystemExit):
        run_function("measure", measure, ["a", "b", "--seeds", "2", "--print_config"])
    file.write_text(capsys.readouterr().out)
    assert run_function("measure", measure, [f"--config={file}"]) == (
        [Path("a"), Path("b")],
        "majority",
        [2],
        False,
        0.5,
    )
    assert run_function("measure", measure, [f"--config={file}", "c", "--share=1"])[::4] == ([Path("c")], 1.0)
    file.write_text("consensu: staple\n")
    with pytest.raises(ValueError, match=r"no option --consensu. Did you mean --consensus\?"):
        run_function("measure", measure, ["a", f"--config={file}"])


def test_help_is_from_the_docstring(capsys):
    with pytest.raises(SystemExit):
        run_function("measure", measure, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in ("Measure runs.", "Folders of runs.", "--seeds SEEDS [SEEDS ...]", "Which share.", "--print_config"):
        assert part in text


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["a", "--overwirte"], r"^There is no option --overwirte. Did you mean --overwrite\?$"),
        (["a", "--xyz=3"], r"^There is no option --xyz.$"),
        (
            ["a", "--consensus=majorty"],
            r"^consensus must be one of majority, staple; found 'majorty'. Did you mean",
        ),
        (["a", "--share", "half"], r"^share must be a number; found 'half'.$"),
        (["a", "--seeds", "0", "one"], r"^seeds must be a whole number; found 'one'.$"),
        ([], r"^the following arguments are required: runs.$"),
        (["a", "--config=missing.yaml"], r"^There is no configuration .*missing.yaml \(--config\).$"),
    ],
)
def test_mistakes_are_sentences(argv, sentence):
    with pytest.raises(ValueError, match=sentence):
        run_function("measure", measure, argv)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--data.rot=x"], r"^There is no option --data.rot. Did you mean --data.root\?$"),
        (["--model.los=CE"], r"^There is no option --model.los. Did you mean --model.loss\?$"),
        (["--model.loss=Dice"], r"^model.loss must be one of dice, .*; found 'Dice'. Did you mean dice\?$"),
        (["--data.fold=one"], r"^data.fold must be a whole number; found 'one'.$"),
        (["--data.phantom.patient=3"], r"^There is no option --data.phantom.patient. Did you mean .*patients\?$"),
        (
            ["--model=SegmentationTsk"],
            r"^model must be the name or the import path of a class; found",
        ),
        (["stray"], r"^'stray' was not expected on the command line; options begin with --.$"),
    ],
)
def test_mistakes_in_settings_of_a_training_are_sentences(argv, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(CONFIGS / "muscle_2ch.yaml"), *argv])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert re.search(sentence, printed.removeprefix("error: ").strip())


def test_what_is_not_understood_is_kept():
    assert explain("Something\n  odd", []) == "Something odd."


def test_options_that_exclude_each_other():
    check_exclusive(baseline=None, compare=["a=b"])
    with pytest.raises(ValueError, match="--baseline and --compare exclude each other; expected one of them"):
        check_exclusive(baseline="a", compare=["a=b"])
