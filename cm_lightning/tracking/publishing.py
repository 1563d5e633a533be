"""Pictures of cases in loggers that show pictures: W&B with masks to switch on and off, TensorBoard with them drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from skimage.color import label2rgb
from skimage.transform import resize

from cm_lightning.drawing import GREY, Panel, class_colour, figure_pixels
from cm_lightning.tracking.loggers import WandbRunLogger

LONGER_SIDE = 384  # pixels; a JPEG of some 15 kB

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """One picture of a case, with square pixels.

    Attributes:
        pixels: ``(height, width)`` or ``(height, width, 3)``, uint8: loggers take floats for something else.
        caption: What is shown.
        masks: Class indices ``(height, width)`` by what they are, such as "label".
    """

    pixels: Pixels
    caption: str
    masks: Mapping[str, Pixels] = field(default_factory=dict)


def make_picture(panel: Panel, **masks: NDArray[Any]) -> Picture:
    """Turn a panel into pixels: the frame on its scale's colours, from 0 to the scale's end.

    Args:
        panel: What is shown; its outlines are not.
        **masks: Class indices of the panel's shape.

    Returns:
        The picture, undistorted.
    """
    extent = np.array(panel.frame.shape) * panel.spacing
    shape = np.maximum(np.round(extent * LONGER_SIDE / extent.max()), 1).astype(int)
    values = np.clip(np.nan_to_num(panel.frame.astype(np.float64)) / panel.scale.highest, 0.0, 1.0)
    values = resize(values, shape, order=1)  # type: ignore[no-untyped-call]
    if panel.scale == GREY:
        pixels = np.round(255 * values).astype(np.uint8)
    else:
        pixels = colormaps[panel.scale.colours](values, bytes=True)[..., :3]
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape, panel.frame.shape, strict=True))
    resized = {name: mask[np.ix_(rows, columns)].astype(np.uint8) for name, mask in masks.items()}
    return Picture(pixels, panel.title, resized)


def publish_pictures(trainer: Trainer, key: str, pictures: Sequence[Picture], class_names: Sequence[str]) -> None:
    """Show pictures of cases in the loggers that can; call it on the first process alone.

    Args:
        trainer: Has the loggers.
        key: Under which they are shown, such as ``media/val/overlay``.
        pictures: One a case.
        class_names: Names of the classes 1, 2, ... of masks.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbRunLogger) and logger.settings.pictures:
            import wandb

            names = dict(enumerate(["background", *class_names]))
            images = [
                wandb.Image(
                    picture.pixels,
                    caption=picture.caption,
                    file_type="jpg",
                    masks={name: {"mask_data": mask, "class_labels": names} for name, mask in picture.masks.items()},
                )
                for picture in pictures
            ]
            _log(trainer, logger, {key: images})
        elif isinstance(logger, TensorBoardLogger):
            for number, picture in enumerate(pictures):
                for name, pixels in _with_masks(picture).items():
                    place = "/".join(part for part in (key, name, str(number)) if part)
                    logger.experiment.add_image(place, pixels, _step(trainer), dataformats="HWC")


def publish_figure(trainer: Trainer, key: str, figure: Figure) -> None:
    """Show a figure of results, which has no picture of a patient, in the loggers that can.

    Args:
        trainer: Has the loggers.
        key: Under which it is shown.
        figure: Which.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbRunLogger):
            import wandb

            _log(trainer, logger, {key: [wandb.Image(figure_pixels(figure))]})
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(key, figure, _step(trainer), close=False)


def _log(trainer: Trainer, logger: WandbRunLogger, values: dict[str, Any]) -> None:
    logger.log_metrics({**values, "epoch": trainer.current_epoch}, _step(trainer))


def _step(trainer: Trainer) -> int:
    """The step that the epoch's scalars are logged at, so that both are one row."""
    return max(trainer.global_step - 1, 0)


def _with_masks(picture: Picture) -> dict[str, Pixels]:
    """The pixels in colour, with each of the masks drawn in."""
    if not picture.masks:
        plain = picture.pixels
        return {"": plain if plain.ndim == 3 else np.repeat(plain[..., None], 3, axis=2)}
    drawn = {}
    for name, mask in picture.masks.items():
        colours = [class_colour(index)[:3] for index in range(1, int(mask.max()) + 1)] or None
        blended = label2rgb(mask, picture.pixels, colors=colours, alpha=0.4, bg_label=0)  # type: ignore[no-untyped-call]
        drawn[name] = np.round(255 * blended).astype(np.uint8)
    return drawn
