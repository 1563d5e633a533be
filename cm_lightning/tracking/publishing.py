"""Pictures of cases in loggers: in W&B with masks that can be switched on and off, in TensorBoard with drawn masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from skimage.transform import resize

from cm_lightning.drawing import GREY, Panel, figure_pixels, overlay
from cm_lightning.tracking.loggers import WandbRunLogger
from cm_lightning.tracking.policy import CASE_PICTURES

# Length of the longer side of pictures in pixels, for which a JPEG file has about 15 kB.
LONGER_SIDE = 384

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """Picture of a case with square pixels.

    Attributes:
        pixels: Grey or RGB image, uint8, ``(height, width)`` or ``(height, width, 3)``.
        caption: Caption of the picture.
        masks: Class indices by name, such as "label", ``(height, width)`` each.
    """

    pixels: Pixels
    caption: str
    masks: Mapping[str, Pixels] = field(default_factory=dict)


def make_picture(panel: Panel, **masks: NDArray[Any]) -> Picture:
    """Convert a panel to a picture with the colours of its scale.

    Args:
        panel: The panel, whose outlines are not drawn.
        **masks: Class indices by name, ``(depth, lateral)`` each.

    Returns:
        Picture with the physical aspect ratio.
    """
    extent = np.array(panel.frame.shape) * panel.spacing
    shape = np.maximum(np.round(extent * LONGER_SIDE / extent.max()), 1).astype(int)
    values = np.clip(np.nan_to_num(panel.frame.astype(np.float64)) / panel.scale.maximum, 0.0, 1.0)
    values = resize(values, shape, order=1)  # type: ignore[no-untyped-call]
    if panel.scale == GREY:
        pixels = np.round(255 * values).astype(np.uint8)
    else:
        pixels = colormaps[panel.scale.colour_map](values, bytes=True)[..., :3]
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape, panel.frame.shape, strict=True))
    resized = {name: mask[np.ix_(rows, columns)].astype(np.uint8) for name, mask in masks.items()}
    return Picture(pixels, panel.title, resized)


def publish_pictures(trainer: Trainer, key: str, pictures: Sequence[Picture], class_names: Sequence[str]) -> None:
    """Log pictures of cases to W&B and TensorBoard, from the first process only.

    Args:
        trainer: Trainer with the loggers.
        key: Key of the pictures, such as ``media/val/overlay``; it begins with ``media/``, by which ``sync`` leaves
            pictures out.
        pictures: One picture per case.
        class_names: Names of the classes 1, 2, ... of the masks.

    Raises:
        ValueError: The key does not begin with ``media/``.
    """
    if not key.startswith(CASE_PICTURES):
        raise ValueError(f"The key {key} of pictures of cases must begin with {CASE_PICTURES}.")
    for logger in trainer.loggers:
        if isinstance(logger, WandbRunLogger):
            if logger.shows_patients:
                logger.attempt(partial(_log_pictures, trainer, logger, key, pictures, class_names))
        elif isinstance(logger, TensorBoardLogger):
            for number, picture in enumerate(pictures):
                for name, pixels in _with_masks(picture).items():
                    tag = "/".join(part for part in (key, name, str(number)) if part)
                    logger.experiment.add_image(tag, pixels, _step(trainer), dataformats="HWC")


def publish_figure(trainer: Trainer, key: str, figure: Figure) -> None:
    """Log a figure of results, which shows no patient, to W&B and TensorBoard.

    Args:
        trainer: Trainer with the loggers.
        key: Key of the figure.
        figure: The figure.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbRunLogger):
            logger.attempt(partial(_log_figure, trainer, logger, key, figure))
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(key, figure, _step(trainer), close=False)


def common_shape(pictures: Sequence[Pixels]) -> tuple[int, int]:
    """Return the smallest height and width in which all pictures fit."""
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
    return int(height), int(width)


def padded(picture: Pixels, shape: tuple[int, int]) -> Pixels:
    """Extend a picture to the right and downwards with zeros, since the gallery of W&B needs pictures of one size.

    Args:
        picture: Picture, ``(height, width)`` or ``(height, width, 3)``.
        shape: Height and width of the result.

    Returns:
        Picture of this shape.
    """
    margins = [(0, size - before) for size, before in zip(shape, picture.shape, strict=False)]
    return np.pad(picture, [*margins, (0, 0)][: picture.ndim])


def _log_pictures(
    trainer: Trainer, logger: WandbRunLogger, key: str, pictures: Sequence[Picture], class_names: Sequence[str]
) -> None:
    import wandb

    names = dict(enumerate(["background", *class_names]))
    shape = common_shape([picture.pixels for picture in pictures])
    images = [
        wandb.Image(
            padded(picture.pixels, shape),
            caption=picture.caption,
            file_type="jpg",
            masks={
                name: {"mask_data": padded(mask, shape), "class_labels": names} for name, mask in picture.masks.items()
            },
        )
        for picture in pictures
    ]
    _log(trainer, logger, {key: images})


def _log_figure(trainer: Trainer, logger: WandbRunLogger, key: str, figure: Figure) -> None:
    import wandb

    _log(trainer, logger, {key: [wandb.Image(figure_pixels(figure))]})


def _log(trainer: Trainer, logger: WandbRunLogger, values: dict[str, Any]) -> None:
    logger.log_metrics({**values, "epoch": trainer.current_epoch}, _step(trainer))


def _step(trainer: Trainer) -> int:
    """Return the step at which the scalars of the epoch are logged, so that both are in one row."""
    return max(trainer.global_step - 1, 0)


def _with_masks(picture: Picture) -> dict[str, Pixels]:
    """Return RGB images, one with each of the masks, by the name of the mask."""
    if not picture.masks:
        return {"": overlay(picture.pixels, np.zeros(picture.pixels.shape[:2], np.uint8))}
    return {name: overlay(picture.pixels, mask) for name, mask in picture.masks.items()}
