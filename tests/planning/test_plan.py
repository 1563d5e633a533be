"""Plans by nnU-Net's rules, compared with published plans and with the limits of the memory."""

import pytest
import torch

from cm_lightning.errors import InputError
from cm_lightning.models import create_network
from cm_lightning.planning import Fingerprint, Resources, make_plan
from cm_lightning.planning.plan import pooling
from cm_lightning.planning.resources import GIB, training_memory

GPU, CPU = Resources(8 * GIB, has_gpu=True), Resources(8 * GIB)


def frames(*shape: float, cases: int = 200, unit: str = "px") -> Fingerprint:
    return Fingerprint(shape, (1.0,) * len(shape), unit, cases)


@pytest.mark.parametrize(
    ("patch", "spacing", "halvings"),
    [
        # Published plans of nnU-Net (Isensee et al. 2021, Supplementary Note 6): brain tumours, hippocampus, prostate.
        ((128, 128, 128), (1.0, 1.0, 1.0), (5, 5, 5)),
        ((40, 56, 40), (1.0, 1.0, 1.0), (3, 3, 3)),
        ((20, 320, 256), (3.6, 0.62, 0.62), (2, 6, 6)),
    ],
)
def test_pooling_is_that_of_published_plans(patch, spacing, halvings):
    strides = pooling(patch, spacing)
    assert tuple(sum(stride[axis] == 2 for stride in strides) for axis in range(3)) == halvings


def test_frames_of_the_comparison_with_nnunet():
    plan = make_plan(frames(119, 128, cases=165), CPU)
    assert (plan.size, plan.is_patch, plan.spacing) == ((128, 128), False, None)
    assert plan.channels == (16, 32, 64, 128, 256, 512)
    assert make_plan(frames(119, 128, cases=165), GPU).channels == (32, 64, 128, 256, 512, 512)
    assert plan.batch_size == 8  # a twentieth of the cases, as nnU-Net
    create_network("DynUNet", 2, 1, 3, plan.size, channels=plan.channels, strides=plan.strides)  # supports the size


def test_volumes_become_patches_at_their_spacing():
    volumes = Fingerprint((480.0, 630.0, 1400.0), (0.1, 0.1, 0.3), "mm", 40)
    plan = make_plan(volumes, GPU)
    assert plan.is_patch
    assert plan.spacing == volumes.spacing
    assert plan.strides[0] == (2, 2, 1)
    assert plan.batch_size >= 2
    assert plan.memory <= GPU.memory
    small = make_plan(volumes, Resources(GIB, has_gpu=True))
    assert torch.tensor(small.size).prod() < torch.tensor(plan.size).prod()
    create_network("DynUNet", 3, 1, 3, small.size, channels=small.channels, strides=small.strides)
    assert make_plan(frames(50, 60, 40), CPU).spacing is None
    coarse = volumes.resampled((0.2, 0.2, 0.6))
    assert (coarse.shape, make_plan(coarse, GPU).spacing) == ((240.0, 315.0, 700.0), (0.2, 0.2, 0.6))


def test_given_sizes_are_kept():
    plan = make_plan(frames(512, 512), CPU, size=[64, 64], batch_size=3, training_cases=30)
    assert (plan.size, plan.batch_size, plan.max_epochs) == ((64, 64), 3, 150)


def test_data_smaller_than_a_patch():
    with pytest.raises(InputError, match=r"median of 6 x 5 voxels, which is smaller than the smallest patch of 8 x 8"):
        make_plan(frames(6, 5), CPU)


@pytest.mark.parametrize("size", [None, [512, 512]])
def test_too_little_memory(size):
    with pytest.raises(InputError, match=r"memory of 0.00\d+ GiB .* on this CPU is too small: .* expected more memory"):
        make_plan(frames(512, 512), Resources(GIB // 1000), size)


def test_memory_grows_with_batch_and_size():
    network = {"channels": (8, 16, 16), "strides": (2, 2)}
    one, two, large = (
        training_memory(size, batch, **network) for size, batch in (((16, 16), 1), ((16, 16), 2), ((32, 32), 1))
    )
    weights = sum(p.numel() for p in create_network("DynUNet", 2, 1, 2, **network).parameters())
    activations = two - one
    assert one == weights * 16 + activations
    assert large == weights * 16 + 4 * activations
