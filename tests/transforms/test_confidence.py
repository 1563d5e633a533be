"""Confidence maps as MONAI transforms: frames, axes, metadata, masks and worker processes."""

import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, EnsureTyped

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data.phantom import Phantom
from cm_lightning.transforms import ConfidenceMap, ConfidenceMapd


def test_every_channel_and_slice_is_a_separate_frame(rng):
    image = rng.random((2, 12, 9, 3)).astype(np.float32)
    maps = ConfidenceMap()(image)
    solver = ConfidenceMapSolver()
    for channel in range(2):
        for index in range(3):
            np.testing.assert_array_equal(maps[channel, :, :, index], solver(image[channel, :, :, index]))


def test_depth_and_lateral_axes(rng):
    frame = rng.random((12, 9))
    expected = ConfidenceMapSolver()(frame)
    swapped = ConfidenceMap(depth_axis=1, lateral_axis=0)(frame.T[None])
    np.testing.assert_array_equal(swapped[0].T, expected)
    last = ConfidenceMap(depth_axis=2, lateral_axis=0)(frame.T[None, :, None, :])
    np.testing.assert_array_equal(last[0, :, 0].T, expected)
    upside_down = ConfidenceMap(flip_depth=True)(frame[None, ::-1])
    np.testing.assert_array_equal(upside_down[0, ::-1], expected)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.uint8, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_metadata_dtype_and_shape_are_preserved(dtype, expected):
    affine = torch.diag(torch.tensor([0.5, 0.7, 2.0, 1.0], dtype=torch.float64))
    image = MetaTensor((torch.rand(1, 10, 8, 2) * 200).to(dtype), affine=affine, meta={"patient": "7"})
    result = ConfidenceMapd("image")({"image": image})
    maps = result["image_confidence"]
    assert isinstance(maps, MetaTensor)
    assert maps.dtype == expected
    assert maps.shape == image.shape
    assert maps.meta["patient"] == "7"
    assert torch.equal(maps.affine, affine)
    assert result["image"] is image


def test_mask_and_output_keys(rng):
    frames = torch.from_numpy(rng.random((1, 14, 9)))
    mask = torch.zeros(1, 14, 9, dtype=torch.bool)
    mask[:, 2:-3, 1:-1] = True
    result = ConfidenceMapd("image", output_keys="certainty", mask_key="inside")({"image": frames, "inside": mask})
    assert torch.equal(result["certainty"], ConfidenceMapSolver()(frames, mask))


def test_fan_is_found_with_the_pixel_size_of_the_affine():
    volume = Phantom(size=(96, 80, 3), spacing=(0.6, 0.8, 1.2), probe="convex").simulate(0)
    affine = torch.diag(torch.tensor([0.6, 0.8, 1.2, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.from_numpy(volume.image)[None], affine=affine)
    maps = np.asarray(ConfidenceMap(probe="auto")(image))[0, :, :, 0]
    positive = maps > 0
    # The sink at the far arc is also 0.
    assert (positive & volume.domain).sum() > 0.97 * volume.domain.sum()
    assert (positive & ~volume.domain).sum() < 0.01 * volume.domain.sum()
    # The slanted edge of the fan is not a source.
    row = 48
    assert maps[row, np.flatnonzero(volume.domain[row])[0] + 1] < 0.99


def test_sink_of_the_solver_in_rectangles_and_half_precision_images(rng):
    frame = np.zeros((40, 36))
    frame[4:33, 5:30] = rng.random((29, 25)) + 0.1
    solver = ConfidenceMapSolver(sink="min")
    maps = ConfidenceMap(solver, probe="auto")(frame[None])
    np.testing.assert_array_equal(maps[0, 4:33, 5:30], solver(frame[4:33, 5:30]))
    image = torch.from_numpy(frame)[None].bfloat16()
    for probe in ("whole", "linear", "auto"):
        expected = ConfidenceMap(solver, probe=probe)(image.float())
        assert torch.equal(ConfidenceMap(solver, probe=probe)(image), expected)


def test_in_forked_workers(rng):
    pipeline = Compose([EnsureTyped("image"), ConfidenceMapd("image")])
    data = [{"image": rng.random((1, 16, 12)).astype(np.float32)} for _ in range(4)]
    expected = torch.stack([torch.as_tensor(pipeline(sample)["image_confidence"]) for sample in data])
    # Compiled code has already run in several threads before the fork.
    loader = DataLoader(Dataset(data, pipeline), batch_size=4, num_workers=2, multiprocessing_context="fork")
    (batch,) = list(loader)
    assert torch.equal(torch.as_tensor(batch["image_confidence"]), expected)


def test_can_be_pickled():
    transform = pickle.loads(pickle.dumps(ConfidenceMapd("image", ConfidenceMapSolver(beta=7.0))))
    assert transform.transform.solver.beta == 7.0


def test_invalid_arguments_raise_errors(rng):
    with pytest.raises(ValueError, match="two different axes"):
        ConfidenceMap(depth_axis=1, lateral_axis=1)
    with pytest.raises(ValueError, match=r"found shape \(4, 4\)"):
        ConfidenceMap()(rng.random((4, 4)))
    with pytest.raises(ValueError, match="one map for each"):
        ConfidenceMapd(["a", "b"], output_keys="c")
