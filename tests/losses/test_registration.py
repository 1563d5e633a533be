"""Registration losses, compared with known values."""

import torch

from cm_lightning.losses import ImageSimilarity, anatomy_loss, bending_energy


def test_similarity_of_linearly_related_images_and_of_noise():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 24, 24, 24)
    similarity = ImageSimilarity(3, window=5)
    assert similarity(0.5 * image + 0.2, image).item() < -0.95  # padding with zeros reduces it slightly
    assert similarity(torch.rand_like(image), image).item() > -0.2
    assert similarity(torch.zeros_like(image), torch.zeros_like(image)).item() == 0  # constant, as outside a fan


def test_similarity_is_in_float32_under_autocast():
    image = 100 + torch.rand(1, 1, 16, 16)  # bfloat16 has steps of 0.5 at 100, in which the contrast would be lost
    with torch.autocast("cpu", torch.bfloat16):
        value = ImageSimilarity(2)(image, image)
    assert value.dtype == torch.float32
    assert value.item() < -0.9


def test_bending_energy_of_a_quadratic_field():
    x = torch.arange(8.0)
    field = torch.zeros(1, 2, 8, 8)
    assert bending_energy(field + 3 + x).item() == 0  # affine
    field[:, 0] = (x**2)[:, None]  # the second derivative is 2 in one of the two components
    torch.testing.assert_close(bending_energy(field), torch.tensor(2.0))


def test_anatomy_loss_is_one_minus_soft_dice():
    warped, fixed = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 1]]]), torch.tensor([[[1.0, 0, 0, 0], [0, 1, 1, 1]]])
    expected = 1 - (2 / 3 + 4 / 5) / 2
    assert abs(anatomy_loss(warped, fixed).item() - expected) < 1e-4
