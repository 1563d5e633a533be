"""Sources of confidence maps: the solver, before the training or on the fly, or a control."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data.cases import Case
from cm_lightning.data.confidence_maps import LEVELS, ConfidenceCache
from cm_lightning.data.resampling import resample
from cm_lightning.errors import InputError

ConfidenceMode = Literal["native", "on_the_fly", "none"]
ConfidenceSource = Literal["solver", "depth", "shuffled"]
# Function that returns the confidence map of a case, ``(1, depth, lateral[, elevation])``. Its arguments are the case,
# the domain of the same shape, the size of the network's grid, and the frames of this grid that are needed (None for
# all).
MapProvider = Callable[[Case, Tensor, tuple[int, ...], range | None], Tensor]


@dataclass(frozen=True)
class StoredMap:
    """Confidence maps that were computed at file resolution.

    Args:
        cache: Cache of the maps.
        donors: Cases whose maps are used instead, by the id of the case; None uses the map of the case itself.
    """

    cache: ConfidenceCache
    donors: Mapping[str, Case] | None = None

    def __call__(self, case: Case, domain: Tensor, size: tuple[int, ...], frames: range | None = None) -> Tensor:
        """Resample a map to the network's grid, ``(1, depth, lateral[, elevation])``, from 0 to 1."""
        donor = case if self.donors is None else self.donors[case.id]
        confidence = resample(self.cache.load(donor.image), size, "linear", frames).div_(LEVELS).clamp_(0, 1)
        return confidence if self.donors is None else confidence * domain


@dataclass(frozen=True)
class DepthRamp:
    """Control for the confidence map: a ramp from 1 at the first insonified row of a frame to 0 at the last one."""

    def __call__(self, case: Case, domain: Tensor, size: tuple[int, ...], frames: range | None = None) -> Tensor:
        """Return the ramp inside the domain, ``(1, depth, lateral[, elevation])``."""
        rows = domain.shape[1]
        inside = domain.any(dim=2, keepdim=True).float()
        first = inside.argmax(dim=1, keepdim=True)
        last = rows - 1 - inside.flip(1).argmax(dim=1, keepdim=True)
        row = torch.arange(rows).reshape(1, rows, *(1,) * (domain.ndim - 2))
        return (1 - (row - first) / (last - first).clamp_min(1)) * domain


@dataclass(frozen=True)
class MapSource:
    """Choice of the source of confidence maps.

    Args:
        mode: Whether maps are computed at file resolution before the training, on the fly, or not at all.
        source: The map of the solver, or a control.
        cache: Cache of maps at file resolution.
        seed: Seed of the random choice of donors.

    Raises:
        InputError: A control is combined with another mode than ``native``.
    """

    mode: ConfidenceMode
    source: ConfidenceSource
    cache: ConfidenceCache
    seed: int

    def __post_init__(self) -> None:
        """Check that the mode supports the source."""
        if self.source != "solver" and self.mode != "native":
            raise InputError(
                f"data.confidence_source {self.source} is prepared once per case and needs data.confidence_mode "
                f"native, found {self.mode}."
            )

    @property
    def is_control(self) -> bool:
        """Whether the network's input is not the map of the image by the solver."""
        return self.source != "solver"

    def cache_to_fill(self, testing: bool) -> ConfidenceCache | None:
        """Return the cache of maps that must be computed before a stage.

        Args:
            testing: Whether the stage is a test, which counts errors by the confidence of the image also for controls.

        Returns:
            The cache; None if no maps are needed.
        """
        needed = self.mode == "native" and (self.source != "depth" or testing)
        return self.cache if needed else None

    def donor(self, case: Case, cases: Sequence[Case]) -> Case:
        """Draw a case of another patient; its map is used in the shuffled control.

        Args:
            case: The case.
            cases: All cases of the data set.

        Returns:
            The donor of the map, which depends only on the case and the seed.

        Raises:
            InputError: All cases belong to one patient.
        """
        others = [other for other in cases if other.patient != case.patient]
        if not others:
            raise InputError("data.confidence_source shuffled needs cases of at least two patients, found one.")
        case_seed = int.from_bytes(hashlib.blake2b(case.id.encode(), digest_size=8).digest())
        return others[int(np.random.default_rng([self.seed, case_seed]).integers(len(others)))]

    def provider(self, selected: Sequence[Case], cases: Callable[[], Sequence[Case]]) -> MapProvider | None:
        """Return the provider of the maps for the network.

        Args:
            selected: Cases for which maps are needed.
            cases: Function that returns all cases of the data set, which is only called for the shuffled control.

        Returns:
            The provider; None for no maps, and for maps that are computed on the fly.
        """
        if self.mode != "native":
            return None
        match self.source:
            case "solver":
                return StoredMap(self.cache)
            case "depth":
                return DepthRamp()
            case "shuffled":
                return StoredMap(self.cache, {case.id: self.donor(case, cases()) for case in selected})

    def image_map_provider(self) -> MapProvider | None:
        """Return the provider of the image's own map, which tests of a control need.

        Returns:
            The provider; None without a control.
        """
        return StoredMap(self.cache) if self.is_control else None


def solve_batch(solver: ConfidenceMapSolver, batch: dict[str, Any]) -> Tensor:
    """Compute the confidence maps of the whole frames of a batch, on its device.

    Args:
        solver: Solver of the maps.
        batch: Batch with ``image``, ``domain``, ``source`` and ``sink``, ``(B, 1, depth, lateral[, elevation])`` each.

    Returns:
        Confidence maps from 0 to 1, ``(B, 1, depth, lateral[, elevation])``.
    """
    arrays = [batch[key] for key in ("image", "domain", "source", "sink")]
    if arrays[0].ndim == 4:
        return solver(*arrays)
    return solver(*(array.movedim(-1, 2) for array in arrays)).movedim(2, -1)
