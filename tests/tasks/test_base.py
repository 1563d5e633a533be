"""What all tasks share."""

import pytest
import torch

from cm_lightning.tasks.base import resize_frame, resize_linearly


@pytest.mark.parametrize("shape", [(9, 14, 11), (5, 4, 3)])
def test_a_frame_is_that_of_the_resized_volume(shape):
    volume = torch.rand(2, 6, 7, 5)
    for frame in range(shape[2]):
        whole = torch.stack([resize_linearly(channel, shape)[..., frame] for channel in volume])
        torch.testing.assert_close(resize_frame(volume, shape, frame), whole)
    image = torch.rand(1, 6, 7)
    torch.testing.assert_close(resize_frame(image, shape[:2], 0)[0], resize_linearly(image[0], shape[:2]))
