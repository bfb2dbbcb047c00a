"""What a miniature cannot read is said before it answers."""

import numpy as np
import pytest
import torch
from conftest import picture, tiny_model
from PIL import Image
from safetensors.torch import save_file
from streams import only

from eyeline import load
from eyeline.events import Start
from eyeline.familiar import Familiar, describe, familiar_of, notices
from eyeline.scenes import FAMILIES, sample
from eyeline.stream import stream


@pytest.fixture
def knowing(tmp_path):
    """A folder whose check says that images are unlike where the first dimension's mean is above 1."""
    weights = torch.zeros(8)
    weights[0] = 2.0
    save_file({"weights": weights, "bias": torch.tensor(-2.0)}, tmp_path / "familiar.safetensors")
    familiar_of.cache_clear()
    yield str(tmp_path)
    familiar_of.cache_clear()


def test_an_image_is_looked_at_by_means_and_deviations_over_its_visual_tokens():
    features = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert describe(features).tolist() == [2.0, 2.0, 1.0, 0.0]
    check = Familiar(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor(-1.5))
    assert check.score(features) == 0.5
    assert check.is_unlike(features)
    assert not check.is_unlike(features - 1)


def test_a_notice_says_which_images_are_unlike_and_what_to_expect(knowing):
    far, near = torch.full((3, 4), 5.0), torch.zeros(3, 4)
    assert notices(knowing, [near]) == ()
    (one,) = notices(knowing, [far])
    assert one.kind == "unlike"
    assert one.message.startswith("The image is unlike what this model can read")
    (two,) = notices(knowing, [far, near, far])
    assert two.message.startswith("Images 1 and 3 are unlike")


def test_a_model_without_such_a_check_says_nothing():
    assert notices("nobody/nothing", [torch.full((3, 4), 1e6)]) == ()
    model = tiny_model("qwen3_vl")
    with stream(model, picture(), "?", max_new_tokens=3, temperature=0, estimator="attention") as events:
        (start,) = only(Start, list(events))
    assert start.notices == ()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_embedded_model_says_nothing_of_its_own_scenes(family):
    example = sample(family, 8_000_003, wild=True)
    with load("mini").stream(example.image, example.prompt, max_new_tokens=2, temperature=0) as events:
        assert next(events).notices == ()


def test_the_embedded_model_says_of_noise_that_it_cannot_read_it():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    with load("mini").stream(
        Image.fromarray(noise), "What is this?", max_new_tokens=2, temperature=0
    ) as events:
        (notice,) = next(events).notices
    assert "reads only drawn scenes like those of the gallery" in notice.message
