"""Names of the callbacks in command lines and checkpoints."""

import pytest

from cm_lightning import callbacks

# Keys of the states of callbacks in checkpoints, including those of earlier versions.
STATE_KEYS = {
    "AugmentationPicture",
    "BestScore",
    "CaseTable",
    "ConfidenceCost",
    "ConfusionPicture",
    "EpochLines",
    "LogPosition",
    "PredictionWriter",
    "ReliabilityPicture",
    "ResultTable",
    "Resuming",
    "RunProgressBar",
    "SegmentationPictures",
    "Throughput",
    "UncertaintyPictures",
    "ValidationMetrics",
    "WorstCasePictures",
}


@pytest.mark.parametrize("name", sorted(STATE_KEYS))
def test_state_keys_do_not_change(name):
    assert getattr(callbacks, name)().state_key == name


def test_all_callbacks_are_exported():
    assert set(callbacks.__all__) == STATE_KEYS
