"""What was found out about a data set and its cases."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.domain import Side
from cm_lightning.data.cases import Case

# Value in a label file; a fraction only in damaged labels.
Value = int | float


@dataclass(frozen=True)
class Problem:
    """Something in the data that should be corrected or known.

    Attributes:
        kind: Short description, which is the same for all problems of this kind.
        text: Sentence that names the file, what was found and what was expected.
        is_fatal: Whether ``fit`` refuses the data because of it.
        case: Id of the case, or "" for the data set as a whole.
    """

    kind: str
    text: str
    is_fatal: bool = False
    case: str = ""


@dataclass(frozen=True)
class Intensities:
    """Distribution of the intensities of an image, without values that are not finite.

    Attributes:
        minimum: Smallest intensity.
        percentile1: 1st percentile.
        median: 50th percentile.
        percentile99: 99th percentile.
        maximum: Largest intensity.
        mean: Mean intensity.
        is_finite: Whether all intensities are finite.
    """

    minimum: float
    percentile1: float
    median: float
    percentile99: float
    maximum: float
    mean: float
    is_finite: bool = True


@dataclass(frozen=True)
class Region:
    """Insonified region of a case.

    Attributes:
        kind: Kind of the geometry, for example ``sector``.
        score: Estimated probability that it is correct.
        coverage: Fraction of the middle frame that is insonified.
        black_band_coverage: Fraction of the middle frame inside its black bands.
        black_band_overlap: Overlap (intersection over union) of the region and the rectangle inside the black bands.
        side: Side of the frames at which the probe seems to be.
        lies_on_its_side: Whether depth seems to run along the rows, judging by the texture.
        middle: Insonified pixels of the middle frame, ``(depth, lateral)``.
    """

    kind: str
    score: float
    coverage: float
    black_band_coverage: float
    black_band_overlap: float
    side: Side
    lies_on_its_side: bool
    middle: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class Picture:
    """Frame of a case for the page.

    Attributes:
        frame: Intensities, ``(depth, lateral)``.
        label: Label values, ``(depth, lateral)``, or None.
        region: Insonified pixels, ``(depth, lateral)``, or None.
        aspect: Ratio of the pixel width to the pixel height, in mm.
    """

    frame: NDArray[Any]
    label: NDArray[Any] | None
    region: NDArray[np.bool_] | None
    aspect: float


@dataclass(frozen=True)
class Findings:
    """What was found out about a case. Whatever could not be read is None or empty.

    Attributes:
        case: The case.
        problems: Its problems.
        shape: Shape of the image in the order of the file axes.
        dtype: Type of its intensities.
        spacing: Voxel size in mm in the order of the file axes, or None if it is unknown.
        axes: Axes with which the image was read.
        states_axes: Whether the file itself states these axes.
        intensities: Distribution of its intensities.
        values: Number of voxels of every value in the label.
        region: Insonified region; None if it was not searched.
        digest: Digest of the pixels of the image.
        thumbnails: Thumbnails for the search for near-duplicates, by the domain to which the frame was cut.
        picture: Frame for the page; None if it is not shown.
    """

    case: Case
    problems: tuple[Problem, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = ""
    spacing: tuple[float, ...] | None = None
    axes: str = ""
    states_axes: bool = False
    intensities: Intensities | None = None
    values: Mapping[Value, int] = field(default_factory=dict)
    region: Region | None = None
    digest: str = ""
    thumbnails: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    picture: Picture | None = field(default=None, repr=False)

    @property
    def is_readable(self) -> bool:
        """Whether the image could be read and has two or three axes."""
        return bool(self.axes)

    @property
    def foreground(self) -> dict[int, int]:
        """Number of voxels of every whole value of the label other than 0."""
        return {int(value): count for value, count in self.values.items() if value != 0 and value == int(value)}

    @property
    def unit(self) -> str:
        """Unit of volumes: mm3, mm2 for single frames, or px if the spacing is unknown."""
        return "px" if self.spacing is None else f"mm{len(self.shape)}"

    @property
    def voxel(self) -> float:
        """Volume of a voxel in :attr:`unit`."""
        return 1.0 if self.spacing is None else float(np.prod(self.spacing))

    def with_problems(self, *problems: Problem) -> "Findings":
        """Return the findings with further problems."""
        return replace(self, problems=(*self.problems, *problems))
