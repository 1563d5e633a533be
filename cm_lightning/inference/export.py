"""Export of trained networks to ONNX and to programs of torch.export, for use without this package."""

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cm_lightning.data.cases import file_digest
from cm_lightning.data.layouts import find_cases
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.inference.loading import TrainedTask, load_task
from cm_lightning.inference.predictor import Predictor
from cm_lightning.io import Axes, read_image
from cm_lightning.runs import FoldFolder, versions
from cm_lightning.tasks import SegmentationTask
from cm_lightning.writing import replaced, write_text

SUFFIXES = (".onnx", ".pt2")
# Largest difference of probabilities between the checkpoint and the exported file.
TOLERANCE = 1e-4
AXIS_NAMES = ("depth", "lateral", "elevation")
MISSING_ONNX = "pip install -e '.[export]' installs onnx, onnxscript and onnxruntime."


class ExportedNetwork(nn.Module):
    """Network whose input has values from 0 to 1 in all channels.

    Args:
        task: Trained task.
    """

    def __init__(self, task: SegmentationTask) -> None:
        super().__init__()
        self.network = task.network
        self.classes = len(task.class_names) + 1
        self.scale: Tensor
        scale = [1.0] if task.input_mode == "1ch" else [1.0, task.confidence_scale]
        self.register_buffer("scale", torch.tensor(scale).reshape(1, -1, *(1,) * task.hparams["spatial_dims"]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the logits of all classes.

        Args:
            inputs: Image and, depending on the network, its confidence map, ``(B, channels, ...)``.

        Returns:
            Logits, ``(B, C, ...)``.
        """
        logits: Tensor = self.network(inputs * self.scale)[:, : self.classes]
        return logits


def export_network(checkpoint: Path, output: Path, image: Path | None = None) -> float:
    """Export the network of a checkpoint, and compare it with the checkpoint on a real image.

    A JSON file beside the output states classes, grid, normalisation and how the confidence map enters. Both files
    appear only if the exported network gives the same probabilities.

    Args:
        checkpoint: Checkpoint that ``fit`` wrote.
        output: File with the suffix ``.onnx`` or ``.pt2``.
        image: Image with which the networks are compared; by default the first one of the data set of the run.

    Returns:
        Largest absolute difference of the probabilities.

    Raises:
        MissingInputError: A file or a library does not exist.
        InputError: The checkpoint, the image or the suffix is invalid, the network cannot be exported, or the exported
            network differs.
    """
    if output.suffix not in SUFFIXES:
        raise InputError(f"--output {output} must end with {' or '.join(SUFFIXES)}.")
    trained = load_task(checkpoint, "checkpoint")
    module = ExportedNetwork(trained.task).eval()
    inputs = example_input(trained, image or _image_of_run(trained))
    with replaced(output) as partial:
        has_batches, run = (_write_onnx if output.suffix == ".onnx" else _write_program)(module, inputs, partial)
        with torch.inference_mode():
            expected, found = module(inputs).softmax(dim=1), run(inputs).softmax(dim=1)
        difference = float((expected - found).abs().max())
        if not difference <= TOLERANCE:
            raise InputError(
                f"The exported network differs from {checkpoint}: its probabilities differ by up to {difference:.2g}, "
                f"expected at most {TOLERANCE:g}. Nothing was written."
            )
        text = json.dumps(describe(trained, inputs, has_batches, difference), indent=2)
        write_text(output.with_suffix(".json"), text + "\n")
    return difference


def example_input(trained: TrainedTask, image: Path) -> Tensor:
    """Prepare a real image as input of the exported network.

    Args:
        trained: Trained task.
        image: Image file.

    Returns:
        Image and, depending on the network, its confidence map, float32, ``(1, channels, ...)``. For a network that
        was trained on patches, it is the middle of the image with the size of a patch.
    """
    file, axes = read_image(image), Axes(trained.settings.axes)
    if file.array.ndim != len(axes.names):
        raise InputError(
            f"{image} has {file.array.ndim} axes (shape {file.array.shape}); expected {len(axes.names)}, as in the "
            "training."
        )
    batch = Predictor([trained]).prepare(file.array, file.spacing, axes.text)
    patch = trained.settings.patch_size
    if "frames" in batch:
        assert patch is not None
        start = max(0, (batch["frames"].size[2] - patch[2]) // 2)
        stop = min(batch["frames"].size[2], start + patch[2])
        batch = {**batch, **batch["frames"].batch(range(start, stop))}
    channels = [batch["image"]] if trained.task.input_mode == "1ch" else [batch["image"], batch["confidence"]]
    inputs = torch.cat([channel.float() for channel in channels], dim=1)
    for axis, size in enumerate(patch or (), start=2):
        length = inputs.shape[axis]
        inputs = inputs.narrow(axis, max(0, (length - size) // 2), min(length, size))
        padding = [0, 0] * (inputs.ndim - 1 - axis) + [0, max(0, size - length)]
        inputs = F.pad(inputs, padding)
    return inputs.contiguous()


def describe(trained: TrainedTask, inputs: Tensor, has_batches: bool, difference: float) -> dict[str, Any]:
    """Describe how an exported network is used.

    Args:
        trained: Trained task.
        inputs: Example of its input, ``(1, channels, ...)``.
        has_batches: Whether the size of batches can be chosen.
        difference: Largest difference of the probabilities to those of the checkpoint.

    Returns:
        Content of the JSON file.
    """
    task, settings = trained.task, trained.settings
    dims = inputs.ndim - 2
    has_map = task.input_mode == "2ch"
    solver = {key: value for key, value in asdict(settings.solver).items() if key not in ("max_batch", "backend")}
    if settings.spatial_size is not None:
        grid: dict[str, Any] = {
            "kind": "whole image",
            "size": list(settings.spatial_size),
            "resampling": "linear with antialiasing, to this size with the same extent; results are resized back",
        }
    else:
        grid = {
            "kind": "sliding window",
            "size": list(settings.patch_size or ()),
            "spacing": settings.spacing and list(settings.spacing),
            "overlap": 0.5,
            "weighting": "Gaussian with a standard deviation of 0.125 of the window, applied to logits",
        }
    confidence = {
        "channel": 1,
        "values": "confidence from 0 to 1; scaling by the network's confidence_scale is part of the file",
        "source": settings.confidence_source,
        "computed": {
            "native": "for whole frames at the resolution of the file, then resampled with the image",
            "on_the_fly": "for whole frames on the grid of the network",
        }.get(settings.confidence_mode),
        "solver": solver,
        "domain": str(settings.domain),
    }
    return {
        "format": 1,
        "network": task.hparams["network"],
        "checkpoint": {"file": trained.path.name, "blake2b": file_digest(trained.path)},
        "classes": {"background": 0, **task.hparams["classes"]},
        "input": {
            "name": "inputs",
            "dtype": "float32",
            "axes": ["batch", "channel", *AXIS_NAMES[:dims]],
            "shape": ["any" if has_batches else 1, *inputs.shape[1:]],
            "channels": ["image", "confidence"] if has_map else ["image"],
            "orientation": "row 0 (depth) is nearest to the probe",
        },
        "normalisation": {
            "channel": 0,
            "values": "(intensity - lowest) / (highest - lowest) with the lowest and highest insonified intensity of "
            "the image; 0 outside of the insonified region",
            "domain": str(settings.domain),
        },
        "confidence": confidence if has_map else None,
        "grid": grid,
        "output": {
            "name": "logits",
            "axes": ["batch", "class", *AXIS_NAMES[:dims]],
            "classes": ["background", *task.class_names],
            "use": "softmax over the axis class gives probabilities; the index of the largest one is the class",
        },
        "temperature": task.temperature_scaling.temperature,
        "largest_component_gain": task.largest_component.gain,
        "largest_difference_of_probabilities": difference,
        "made_with": versions(),
    }


def _image_of_run(trained: TrainedTask) -> Path:
    """Return an image of the data set of the run."""
    fold = FoldFolder(trained.path.resolve().parent.parent)
    expected = "expected --image FILE, an image with which the exported network is compared"
    if not fold.config.is_file():
        raise MissingInputError(f"There is no {fold.config} that states the data set of {trained.path}; {expected}.")
    data = fold.read_settings("data")["data"]
    root = Path(data["root"])
    if not root.is_dir():
        raise MissingInputError(f"The data set {root} of {trained.path} does not exist; {expected}.")
    return find_cases(root, data["layout"])[0].image


def _write_program(module: nn.Module, inputs: Tensor, path: Path) -> tuple[bool, Callable[[Tensor], Tensor]]:
    """Write a program of torch.export. Return whether batches may have any size, and a function that runs the file."""
    program, has_batches = _trace(module, inputs)
    torch.export.save(program, path)
    loaded: Any = torch.export.load(path).module()
    return has_batches, loaded


def _write_onnx(module: nn.Module, inputs: Tensor, path: Path) -> tuple[bool, Callable[[Tensor], Tensor]]:
    """Write an ONNX file. Return whether batches may have any size, and a function that runs the file."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch imports it)
    except ImportError as error:
        raise MissingInputError(f"The export to ONNX needs {error.name}; {MISSING_ONNX}") from error
    program, has_batches = _trace(module, inputs)
    with _quiet():
        exported: Any = torch.onnx.export(
            program, (), input_names=["inputs"], output_names=["logits"], dynamo=True, verbose=False
        )
        exported.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(values: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {session.get_inputs()[0].name: values.numpy()})[0]))

    return has_batches, run


def _trace(module: nn.Module, inputs: Tensor) -> tuple[torch.export.ExportedProgram, bool]:
    """Trace a network, for batches of any size if its operations allow this."""
    # Batches of one are special in torch.
    two = inputs.expand(2, *inputs.shape[1:]).contiguous()
    with _quiet():
        try:
            dynamic = {"inputs": {0: torch.export.Dim("batch", min=1, max=1024)}}
            return torch.export.export(module, (two,), dynamic_shapes=dynamic, strict=False), True
        except Exception:  # networks with other assumptions about the size of a batch raise errors of many types
            try:
                return torch.export.export(module, (inputs,), strict=False), False
            except Exception as error:
                reason = str(error).strip().splitlines()
                raise InputError(
                    f"torch.export does not support this network: {reason[0] if reason else type(error).__name__}."
                ) from error


@contextmanager
def _quiet() -> Any:
    """Hide the progress and the warnings of the exporters, which a user cannot act on."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
