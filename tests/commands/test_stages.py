"""Help, version and errors of the command line do not import heavy packages."""

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
    ("argv", "expected"),
    [
        (["--help"], "variability"),
        ([], "crossval"),
        (["--version"], "cm_lightning 0."),
        (["fti"], "no subcommand 'fti'. Did you mean fit?"),
        (["xyz"], "no subcommand 'xyz'. Expected one of fit, validate"),
        (["fit", "--modle.loss=CE"], "no option --modle.loss. Did you mean --model.loss?"),
        (["fit", "--confg", "a.yaml"], "no option --confg. Did you mean --config?"),
        (["test", "--ckpt-path=best"], "no option --ckpt-path. Did you mean --ckpt_path?"),
        (["report", "--ouput", "x", "runs"], "no option --ouput. Did you mean --output?"),
        (["variability", "runs", "--consensus=stapl"], "found 'stapl'. Did you mean staple?"),
        *((([name, "--help"]), "Show this help") for name in sorted(OWN_COMMANDS.keys() - {"phantom"})),
    ],
)
def test_answers_without_heavy_imports(argv, expected):
    process = subprocess.run([sys.executable, "-c", SCRIPT, *argv], capture_output=True, text=True, check=True)
    printed, _, imported = process.stdout.rpartition("imported:")
    assert expected in " ".join((printed + process.stderr).split())
    assert not HEAVY & set(imported.split())


@pytest.mark.parametrize("stage", STAGES)
def test_options_equal_those_of_the_parser(stage, capsys):
    with pytest.raises(SystemExit):
        main([stage, "--help"])
    names = {re.split(r"[.+]", option)[0] for option in re.findall(r"--([a-z][\w.+]*)", capsys.readouterr().out)}
    assert names <= set(OPTIONS)
    if stage == "fit":
        assert set(OPTIONS) - names <= {"verbose", "return_predictions", "ensemble"}


def test_values_and_abbreviated_options_are_accepted():
    check_options(
        ["fit", "--config", "a.yaml", "--exp=x", "--trainer.callbacks+=A", "--data.root", "/--no", "-h", "--"]
    )
