"""Patches and dense labels against the image processor and the scene."""

import numpy as np
import pytest
import torch

from eyeline.scenes import FAMILIES, draw
from eyeline.training.minis import MINIS, build_image_processor
from eyeline.training.soup import soup
from eyeline.training.visual_tokens import HEADS, dense_labels, patches


@pytest.mark.parametrize("name", MINIS)
@pytest.mark.parametrize("family", FAMILIES)
def test_patches_are_those_of_the_image_processor(family, name):
    scene = draw(family, 11)
    processed = build_image_processor(MINIS[name])(images=[scene.image], return_tensors="pt")
    ours = torch.from_numpy(patches(np.asarray(scene.image))).float() / 127.5 - 1
    torch.testing.assert_close(ours, processed["pixel_values"], atol=1e-6, rtol=0)


def test_dense_labels_name_what_a_token_shows():
    scene = soup(5)
    labels = dense_labels(scene)
    assert labels.shape == (64, len(HEADS))
    assert (labels < np.array(list(HEADS.values()))).all()
    number = next(item for item in scene.canvas.items if item.word.isdigit() and len(item.word) == 2)
    left, top, right, bottom = number.box
    cell = labels.reshape(8, 8, -1)[(top + bottom) // 64, (left + right) // 64]
    assert (cell[5], cell[6]) == (int(number.word[0]) + 1, int(number.word[1]) + 1)
