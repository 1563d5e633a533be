"""Files of runs: names of files and folders, settings, sweeps, versions, and search for experiments."""

from cm_lightning.runs.layout import ExperimentFolder, FoldFolder, find_experiments
from cm_lightning.runs.settings import Settings, flatten
from cm_lightning.runs.versions import source_commit, versions

__all__ = ["ExperimentFolder", "FoldFolder", "Settings", "find_experiments", "flatten", "source_commit", "versions"]
