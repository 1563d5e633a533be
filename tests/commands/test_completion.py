"""The script with which a shell completes options."""

import subprocess

import pytest

from cm_lightning.commands import OWN_COMMANDS
from cm_lightning.commands.completion import options
from cm_lightning.main import main


def complete(script, words):
    """Return what bash offers for the last of some words."""
    code = f"""
        source {script}
        COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
        _shtab_cm_lightning; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_subcommands_and_options(tmp_path, capsys):
    pytest.importorskip("shtab")
    main(["completion", "bash"])
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    assert complete(script, ["cm_lightning", "conf"]) == ["confmap"]
    assert complete(script, ["cm_lightning", "fit", "--data.roo"]) == ["--data.root"]
    assert {"--model.mc_dropout", "--ckpt_path"} <= set(complete(script, ["cm_lightning", "predict", "--"]))


@pytest.mark.parametrize("name", [name for name in OWN_COMMANDS if name != "completion"])
def test_every_subcommand_has_options_besides_its_configuration(name):
    assert set(options(name)) - {"config", "print_config"}
