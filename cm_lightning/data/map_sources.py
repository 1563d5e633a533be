"""Where the confidence map of a case comes from: the solver, before training or on the fly, or a control."""

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
MapProvider = Callable[[Case, Tensor], Tensor]  # a case and its domain, (1, depth, lateral[, elevation]), to its map


@dataclass(frozen=True)
class StoredMap:
    """Confidence maps that were computed at file resolution.

    Args:
        cache: Where they lie.
        donors: Case whose map a case gets in place of its own, by the case's id; None for its own.
    """

    cache: ConfidenceCache
    donors: Mapping[str, Case] | None = None

    def __call__(self, case: Case, domain: Tensor) -> Tensor:
        """Bring a map to the grid of the case's domain, ``(1, depth, lateral[, elevation])`` in [0, 1]."""
        owner = case if self.donors is None else self.donors[case.id]
        confidence = (resample(self.cache.load(owner.image), domain.shape[1:], "linear") / LEVELS).clamp(0, 1)
        return confidence if self.donors is None else confidence * domain


@dataclass(frozen=True)
class DepthRamp:
    """A control in place of the confidence map: 1 at the first insonified row of a frame, falling to 0 at its last."""

    def __call__(self, case: Case, domain: Tensor) -> Tensor:
        """Draw the ramp inside the domain, ``(1, depth, lateral[, elevation])``."""
        rows = domain.shape[1]
        inside = domain.any(dim=2, keepdim=True).float()
        first = inside.argmax(dim=1, keepdim=True)
        last = rows - 1 - inside.flip(1).argmax(dim=1, keepdim=True)
        row = torch.arange(rows).reshape(1, rows, *(1,) * (domain.ndim - 2))
        return (1 - (row - first) / (last - first).clamp_min(1)) * domain


@dataclass(frozen=True)
class MapSource:
    """Chooses where maps come from.

    Args:
        mode: Whether maps are computed at file resolution before training, on the fly, or not at all.
        source: The solver's map, or a control in its place.
        cache: Maps at file resolution.
        seed: Of the draw of donors.

    Raises:
        InputError: A control is asked for in another mode than ``native``.
    """

    mode: ConfidenceMode
    source: ConfidenceSource
    cache: ConfidenceCache
    seed: int

    def __post_init__(self) -> None:
        """Check that the mode can give the source."""
        if self.source != "solver" and self.mode != "native":
            raise InputError(
                f"data.confidence_source {self.source} is a control that is prepared once a case and needs "
                f"data.confidence_mode native, found {self.mode}."
            )

    @property
    def is_control(self) -> bool:
        """Whether networks see something else than the solver's map of the image."""
        return self.source != "solver"

    def cache_to_fill(self, testing: bool) -> ConfidenceCache | None:
        """Say which maps have to be on disk before a stage runs.

        Args:
            testing: Whether the stage is a test, which sorts errors by the solver's map even under a control.

        Returns:
            Where they are kept; None where there are none to compute.
        """
        needed = self.mode == "native" and (self.source != "depth" or testing)
        return self.cache if needed else None

    def donor(self, case: Case, cases: Sequence[Case]) -> Case:
        """Draw the case of another patient whose map a case gets in the shuffled control; the same one every time.

        Args:
            case: Which case.
            cases: All cases of the data set.

        Returns:
            The case that gives its map.

        Raises:
            InputError: All cases are of one patient.
        """
        others = [other for other in cases if other.patient != case.patient]
        if not others:
            raise InputError("The shuffled control needs cases of two patients; found one (data.confidence_source).")
        own = int.from_bytes(hashlib.blake2b(case.id.encode(), digest_size=8).digest())
        return others[int(np.random.default_rng([self.seed, own]).integers(len(others)))]

    def provider(self, selected: Sequence[Case], cases: Callable[[], Sequence[Case]]) -> MapProvider | None:
        """Say how cases get their maps when they are prepared.

        Args:
            selected: These cases.
            cases: Gives all cases of the data set; only called for the shuffled control.

        Returns:
            What gives a map; None for no map, or for one that is computed on the fly.
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

    def own_provider(self) -> MapProvider | None:
        """Say how tested cases get the map of their own image beside a control's: errors are sorted by it."""
        return StoredMap(self.cache) if self.is_control else None


def solve_batch(solver: ConfidenceMapSolver, batch: dict[str, Any]) -> Tensor:
    """Compute the maps of a batch's whole frames, on its device.

    Args:
        solver: Computes them.
        batch: ``image``, ``domain``, ``source`` and ``sink``, each ``(B, 1, depth, lateral[, elevation])``.

    Returns:
        Maps in [0, 1] of the images' shape.
    """
    arrays = [batch[key] for key in ("image", "domain", "source", "sink")]
    if arrays[0].ndim == 4:
        return solver(*arrays)
    return solver(*(array.movedim(-1, 2) for array in arrays)).movedim(2, -1)
