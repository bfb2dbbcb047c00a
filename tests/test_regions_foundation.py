"""Regions from a foundation model: its features against the model's own class, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from cells import crossing, grid_of, planted, random_features
from conftest import picture
from foundations import DINOV3_PROCESSOR, FOUNDATIONS, VIT, save_foundation
from huggingface_hub.errors import GatedRepoError
from PIL import Image
from safetensors.torch import load_file, save_file

from eyeline.errors import RegionError
from eyeline.regions import SOURCES, regions_for
from eyeline.regions.foundation import DINOV3, dinov3, foundation_features, load_foundation
from eyeline.regions.native import segment
from eyeline.regions.view import View

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def foundations(tmp_path_factory):
    """A folder of each family's tiny model."""
    return {family: save_foundation(family, tmp_path_factory.mktemp(family)) for family in FOUNDATIONS}


def literal_features(family, folder, image, rows, cols):
    """Each cell's patches, picked one by one from what the model's own class gives for the resized image."""
    kind, _, (stride, side, before) = FOUNDATIONS[family]
    size = (cols * side * stride, rows * side * stride)
    if family.startswith("dinov3"):
        resized = np.asarray(image.resize(size, Image.Resampling.BILINEAR)) / 255
        pixels = (resized - DINOV3_PROCESSOR["image_mean"]) / DINOV3_PROCESSOR["image_std"]
        pixels = torch.tensor(pixels).float().permute(2, 0, 1)[None]
    else:
        processor = transformers.BitImageProcessorPil.from_pretrained(
            folder, do_resize=False, do_center_crop=False
        )
        pixels = processor(image.resize(size, Image.Resampling.BICUBIC), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        tokens = kind.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state[0]
    assert len(tokens) == before + rows * cols * side**2
    cells = []
    for row in range(rows):
        for col in range(cols):
            ys, xs = range(row * side, row * side + side), range(col * side, col * side + side)
            cells.append(
                torch.stack([tokens[before + y * cols * side + x] for y in ys for x in xs]).mean(dim=0)
            )
    return torch.stack(cells)


@pytest.mark.parametrize("family", FOUNDATIONS)
def test_a_foundation_models_features_are_the_means_of_each_cells_patches_without_cls_and_registers(
    foundations, family
):
    folder = foundations[family]
    for rows, cols, image in ((4, 9, picture(300, 130)), (7, 6, picture(50, 61, seed=1))):
        ours = foundation_features(load_foundation(folder, CPU), image, rows, cols)
        torch.testing.assert_close(
            ours, literal_features(family, folder, image, rows, cols), rtol=1e-4, atol=1e-4
        )


def test_an_image_of_very_many_cells_has_one_patch_a_cell(foundations, monkeypatch):
    monkeypatch.setattr("eyeline.regions.foundation.MAX_FINE_CELLS", 40)
    foundation = load_foundation(foundations["dinov3_vit"], CPU)
    image, sizes = picture(300, 130), []
    hook = foundation.hf.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(tuple(kwargs["pixel_values"].shape[2:])), with_kwargs=True
    )
    with hook:
        shapes = [foundation_features(foundation, image, *shape).shape for shape in ((4, 10), (4, 11))]
    assert sizes == [(4 * 32, 10 * 32), (4 * 16, 11 * 16)]
    assert shapes == [(40, 32), (44, 32)]


def test_dinov3_regions_are_wards_of_its_features_for_each_image_whatever_the_vision_tower_says(foundations):
    folder = foundations["dinov3_vit"]
    images, shapes = [picture(300, 130), picture(200, 200, seed=1), picture()], [(4, 9), (8, 8), (2, 3)]
    grids = [grid_of(*shape) for shape in shapes]
    with torch.inference_mode():  # as in a stream
        found = regions_for(images, grids, [random_features(*shape) for shape in shapes], f"dinov3:{folder}")
    count = 0
    for image, shape, labels in zip(images[:2], shapes[:2], found.labels[:2], strict=True):
        expected = segment(literal_features("dinov3_vit", folder, image, *shape), *shape)
        assert torch.equal(labels, expected + count)
        count += int(expected.max()) + 1
    assert torch.equal(found.labels[2].flatten(), torch.arange(6) + count)  # too small for Ward
    assert found.count == count + 6


def test_dinov3_regions_end_at_the_borders_of_flat_colours(foundations):
    image, quadrants = planted(11, 13, 3, 5)
    for family in ("dinov3_vit", "dinov2"):
        labels = SOURCES["dinov3"](View(image, torch.zeros(143, 1), 11, 13), 0, model=foundations[family])
        assert crossing(labels, quadrants) == 0


def test_a_foundation_model_is_loaded_once(foundations, monkeypatch):
    load, loaded = transformers.AutoModel.from_pretrained, []
    monkeypatch.setattr(
        transformers.AutoModel,
        "from_pretrained",
        lambda *args, **kw: loaded.append(args) or load(*args, **kw),
    )
    load_foundation.cache_clear()
    for seed in range(2):
        dinov3(View(picture(), random_features(6, 6), 6, 6), seed, model=foundations["dinov2"])
    assert loaded == [(foundations["dinov2"],)]


def refused(source):
    """The message about it, before any image is read."""
    with pytest.raises(RegionError) as caught:
        regions_for([picture()], [grid_of(2, 3)], [random_features(2, 3)], source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_foundation_model_out_of_reach_says_what_to_do(monkeypatch):
    message = refused("dinov3")  # the Hub is switched off in tests
    assert DINOV3 in message
    assert "the Hugging Face Hub cannot be reached" in message
    assert "dinov3:FOLDER" in message
    assert ". " not in message

    def gated(*args, **options):
        raise OSError("You are trying to access a gated repo.") from GatedRepoError(
            "gated", response=SimpleNamespace(headers={}, request=None)
        )

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", gated)
    message = refused("dinov3")
    assert "is gated: accept its terms on the Hub and log in with `hf auth login`; or name another" in message
    assert "dinov3:facebook/dinov2-large" in message


def test_a_folder_that_is_no_foundation_model_is_refused(foundations, tmp_path):
    assert "'./missing'" in refused("dinov3:./missing")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refused(f"dinov3:{tmp_path / 'empty'}")
    transformers.ViTConfig(**VIT).save_pretrained(tmp_path / "vit")
    assert (
        "family 'vit': regions can be made from dinov2, dinov2_with_registers, dinov3_convnext, dinov3_vit"
        in refused(f"dinov3:{tmp_path / 'vit'}")
    )
    part = tmp_path / "part"
    save_foundation("dinov2", part)
    weights = load_file(part / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    assert "lack 1 tensors of the model (first layernorm.weight)" in refused(f"dinov3:{part}")
