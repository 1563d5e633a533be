"""Parsers made from typed functions, and parser errors in plain sentences."""

import re
from pathlib import Path
from typing import Literal

import pytest

from cm_lightning.main import main
from cm_lightning.parsing import check_exclusive, explain, run_function, without_markup
from tests.conftest import CONFIGS


def measure(
    runs: list[Path],
    consensus: Literal["majority", "staple"] = "majority",
    seeds: list[int] | None = None,
    overwrite: bool = False,
    fraction: float = 0.5,
) -> tuple:
    """Measure runs.

    Args:
        runs: Folders of runs.
        consensus: Method that combines labels.
        seeds: Seeds of training.
        overwrite: Replace earlier results.
        fraction: Fraction of the data.
    """
    return runs, consensus, seeds, overwrite, fraction


def named(*, entity: str, dry_run: Path | None = None) -> tuple:
    """Show runs.

    Args:
        entity: Team.
        dry_run: File.
    """
    return entity, dry_run


def test_function_is_called_with_the_arguments():
    assert run_function("measure", measure, ["a", "b"]) == ([Path("a"), Path("b")], "majority", None, False, 0.5)
    argv = ["a", "--seeds", "0", "1", "--overwrite", "--consensus=staple", "--fraction", "0.25"]
    assert run_function("measure", measure, argv) == ([Path("a")], "staple", [0, 1], True, 0.25)
    assert run_function("measure", measure, ["a", "--overwrite", "false"])[3] is False
    assert run_function("named", named, ["--entity", "team"]) == ("team", None)


def test_config_and_print_config(tmp_path, capsys):
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
    assert run_function("measure", measure, [f"--config={file}", "c", "--fraction=1"])[::4] == ([Path("c")], 1.0)
    file.write_text("consensu: staple\n")
    with pytest.raises(ValueError, match=r"no option --consensu. Did you mean --consensus\?"):
        run_function("measure", measure, ["a", f"--config={file}"])


def test_help_comes_from_the_docstring(capsys):
    with pytest.raises(SystemExit):
        run_function("measure", measure, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "Measure runs.",
        "Folders of runs.",
        "--seeds SEEDS [SEEDS ...]",
        "Fraction of the data.",
        "--print_config",
    ):
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
        (["a", "--fraction", "half"], r"^fraction must be a number; found 'half'.$"),
        (["a", "--seeds", "0", "one"], r"^seeds must be a whole number; found 'one'.$"),
        ([], r"^the following arguments are required: runs.$"),
        (["a", "--config=missing.yaml"], r"^There is no configuration .*missing.yaml \(--config\).$"),
    ],
)
def test_errors_are_sentences(argv, sentence):
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
        (["stray"], r"^Unexpected argument 'stray'; options begin with --.$"),
    ],
)
def test_errors_in_settings_of_a_training_are_sentences(argv, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(CONFIGS / "muscle_2ch.yaml"), *argv])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert re.search(sentence, printed.removeprefix("error: ").strip())


def test_unknown_message_is_kept():
    assert explain("Something\n  odd", []) == "Something odd."


def test_options_that_cannot_be_combined():
    check_exclusive(baseline=None, compare=["a=b"])
    with pytest.raises(ValueError, match="--baseline and --compare cannot be combined; expected only one of them"):
        check_exclusive(baseline="a", compare=["a=b"])


def test_help_has_no_markup():
    text = "``muscle``, :class:`datetime.timedelta`, :meth:`~lightning.pytorch.Trainer.fit` or `name`"
    assert without_markup(text) == "muscle, datetime.timedelta, fit or `name`"


def test_help_of_a_class_has_the_name_of_the_program(capsys):
    with pytest.raises(SystemExit):
        main(["phantom", "--raters.help"])
    assert capsys.readouterr().out.startswith("usage: cm_lightning SUBCOMMAND")
