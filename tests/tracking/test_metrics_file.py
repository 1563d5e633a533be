"""Logged metrics of interrupted and resumed runs."""

from cm_lightning.tracking.loggers import ResumableCSVLogger
from cm_lightning.tracking.metrics_file import read_rows


def log(folder, *rows):
    """Log rows as one start of a run, which is killed when all rows are saved."""
    logger = ResumableCSVLogger(folder)
    for row in rows:
        logger.log_metrics(row, row["epoch"])
        logger.save()
    return logger


def test_a_start_never_deletes_rows_of_earlier_starts(tmp_path):
    log(tmp_path, {"epoch": 0, "a": 1.0}, {"epoch": 1, "a": 2.0})
    second = ResumableCSVLogger(tmp_path)
    assert second.experiment.rows == 2  # killed before its first row
    assert len(read_rows(tmp_path / "metrics.csv")) == 2
    log(tmp_path, {"epoch": 2, "b": 3.0})  # a new column
    rows = read_rows(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert (rows[0]["a"], rows[2]["b"]) == ("1.0", "3.0")


def test_a_line_that_was_cut_is_removed(tmp_path):
    log(tmp_path, {"epoch": 0, "a": 1.0}, {"epoch": 1, "a": 2.0})
    file = tmp_path / "metrics.csv"
    for cut in (3, 1):
        file.write_text(file.read_text()[:-cut])
        log(tmp_path, {"epoch": 1, "a": 2.5})
        assert [row["a"] for row in read_rows(file)] == ["1.0", "2.5"]


def test_rewinding_keeps_rows_before_the_checkpoint_and_tests(tmp_path):
    log(tmp_path, *({"epoch": epoch, "a": float(epoch)} for epoch in range(4)), {"epoch": 4, "test/dice": 0.5})
    logger = ResumableCSVLogger(tmp_path)
    logger.experiment.rewind(2, {"epoch": 2, "a": 9.0, "step": 2})
    assert [row.get("a") for row in read_rows(tmp_path / "metrics.csv")] == ["0.0", "1.0", "9.0", None]
    assert logger.experiment.rows == 4
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.csv"}
