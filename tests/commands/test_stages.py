"""What is answered before anything heavy is imported: help, versions and mistakes."""

import re
import subprocess
import sys

import pytest

from cm_lightning.commands import OWN_COMMANDS
from cm_lightning.commands.stages import OPTIONS, STAGES, check_options
from cm_lightning.main import main

HEAVY = {
    "torch",
    "pytorch_lightning",
    "monai",
    "pandas",
    "matplotlib",
    "scipy",
    "numba",
    "wandb",
    "nibabel",
    "SimpleITK",
}
SCRIPT = """
import sys
from cm_lightning.main import main
try:
    main(sys.argv[1:])
except (SystemExit, ValueError) as end:
    print(end)
print("imported:", *sys.modules)
"""


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (["--help"], "variability"),
        ([], "crossval"),
        (["--version"], "cm_lightning 0."),
        (["fti"], "no subcommand 'fti'; did you mean fit?"),
        (["xyz"], "no subcommand 'xyz'; expected one of fit, validate"),
        (["fit", "--modle.loss=CE"], "no option --modle.loss; did you mean --model.loss?"),
        (["fit", "--confg", "a.yaml"], "no option --confg; did you mean --config?"),
        (["test", "--ckpt-path=best"], "no option --ckpt-path; did you mean --ckpt_path?"),
        (["report", "--ouput", "x", "runs"], "no option --ouput. Did you mean --output?"),
        (["variability", "runs", "--consensus=stapl"], "found 'stapl'. Did you mean staple?"),
        *((([name, "--help"]), "Show this help") for name in sorted(OWN_COMMANDS.keys() - {"phantom"})),
    ],
)
def test_answers_without_importing_anything_heavy(argv, answer):
    process = subprocess.run([sys.executable, "-c", SCRIPT, *argv], capture_output=True, text=True, check=True)
    printed, _, imported = process.stdout.rpartition("imported:")
    assert answer in " ".join((printed + process.stderr).split())
    assert not HEAVY & set(imported.split())


@pytest.mark.parametrize("stage", STAGES)
def test_options_are_those_of_the_parser(stage, capsys):
    with pytest.raises(SystemExit):
        main([stage, "--help"])
    named = {re.split(r"[.+]", option)[0] for option in re.findall(r"--([a-z][\w.+]*)", capsys.readouterr().out)}
    assert named <= set(OPTIONS)
    if stage == "fit":
        assert set(OPTIONS) - named <= {"verbose", "return_predictions"}


def test_values_and_beginnings_of_options_are_let_through():
    check_options(
        ["fit", "--config", "a.yaml", "--exp=x", "--trainer.callbacks+=A", "--data.root", "/--no", "-h", "--"]
    )
