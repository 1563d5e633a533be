"""Sizes of grid, network and batch for a data set and the memory there is, by the rules of nnU-Net."""

from cm_lightning.planning.fingerprint import Fingerprint, read_fingerprint
from cm_lightning.planning.plan import Plan, make_plan
from cm_lightning.planning.resources import Resources, find_resources

__all__ = ["Fingerprint", "Plan", "Resources", "find_resources", "make_plan", "read_fingerprint"]
