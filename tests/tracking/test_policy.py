"""Settings of W&B itself are honoured, and pictures of patients are sent only if asked for."""

import pytest

from cm_lightning.tracking.loggers import WandbRunLogger
from cm_lightning.tracking.policy import RunIdentity, WandbSettings, _run_id, resolve_mode


@pytest.fixture
def login(monkeypatch, tmp_path):
    """A login, and no other settings of W&B."""
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WANDB_MODE", "", "online"),
        ("WANDB_MODE", "ofline", "offline"),
        ("WANDB_DISABLED", "true", "disabled"),
        ("WANDB_DISABLED", "false", "online"),
    ],
)
def test_environment(login, monkeypatch, name, value, expected):
    monkeypatch.setenv(name, value)
    assert resolve_mode(WandbSettings())[0] == expected


@pytest.mark.parametrize(("line", "expected"), [("mode = offline", "offline"), ("disabled = true", "disabled")])
def test_settings_files(login, tmp_path, line, expected):
    (tmp_path / "settings").write_text(f"[default]\n{line}\n")
    assert resolve_mode(WandbSettings())[0] == expected


@pytest.mark.parametrize(
    ("mode", "pictures", "expected"),
    [("auto", None, False), ("auto", True, True), ("offline", None, True), ("offline", False, False)],
)
def test_pictures_are_sent_only_if_asked_for(login, tmp_path, mode, pictures, expected):
    logger = WandbRunLogger(WandbSettings(mode, pictures=pictures), RunIdentity(tmp_path, "x/fold0", "x", "fold"))
    assert logger.shows_patients == expected


def test_folds_do_not_share_the_id_of_the_shell(login, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "shared")
    assert _run_id(tmp_path) != "shared"
