import functools
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from conftest import picture
from huggingface_hub.errors import GatedRepoError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage

from eyeline.adapters import ImageGrid
from eyeline.errors import RegionError
from eyeline.regions import (
    DINOV3,
    FEWEST,
    MOST,
    SOURCES,
    Regions,
    _connected,
    bounds,
    dinov3,
    foundation_features,
    from_boxes,
    from_label_map,
    load_foundation,
    regions_for,
    segment,
    where,
)

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
CPU = torch.device("cpu")
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56}
# family -> model, pixels of a patch, patches along a cell, tokens before the patches
FOUNDATIONS = {
    "dinov3_vit": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**VIT, intermediate_size=48, num_register_tokens=3),
        (16, 2, 4),
    ),
    "dinov3_convnext": (
        transformers.DINOv3ConvNextModel,
        transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1]),
        (32, 1, 1),
    ),
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**VIT, patch_size=14), (14, 2, 1)),
    "dinov2_with_registers": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(**VIT, patch_size=14, num_register_tokens=2),
        (14, 2, 3),
    ),
}
DINOV3_PROCESSOR = {  # as published; the class itself needs torchvision
    "image_processor_type": "DINOv3ViTImageProcessorFast", "do_rescale": True, "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_normalize": True,
    "size": {"height": 224, "width": 224}, "do_resize": True, "resample": 2,
}  # fmt: skip


def save_foundation(family, folder):
    """A tiny model of random weights, with its image processor, as the Hub would hold it."""
    kind, config, _ = FOUNDATIONS[family]
    model, rng = kind(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():  # so wide that every part of the model shows in its features
            weight.copy_(
                torch.randn(weight.shape, generator=rng)
                * (weight[0].numel() ** -0.5 if weight.ndim > 1 else 1)
            )
    model.save_pretrained(folder)
    if family.startswith("dinov3"):
        (folder / "preprocessor_config.json").write_text(json.dumps(DINOV3_PROCESSOR))
    else:
        transformers.BitImageProcessorPil(
            image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]
        ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def foundations(tmp_path_factory):
    """A folder of each family's tiny model."""
    return {family: save_foundation(family, tmp_path_factory.mktemp(family)) for family in FOUNDATIONS}


@pytest.fixture(scope="session")
def sources(foundations):
    """All sources, with a model that is here for `dinov3`."""
    return SOURCES | {"dinov3": functools.partial(dinov3, model=foundations["dinov3_vit"])}


def random_features(rows, cols, dim=24, seed=0):
    return torch.randn(rows * cols, dim, generator=torch.Generator().manual_seed(seed))


def is_connected(mask):
    return ndimage.label(mask.numpy())[1] == 1  # through sides, not corners


def blocks(rows, cols, seed=0, dim=24):
    """Features of a 4 x 4 board of plainly different blocks, and the board."""
    board = torch.arange(rows)[:, None] * 4 // rows * 4 + torch.arange(cols) * 4 // cols
    colours = random_features(4, 4, dim, seed)
    return colours[board.flatten()] + 0.05 * random_features(rows, cols, dim, seed + 1), board


def slow_ward(vectors, rows, cols, count):
    """Merges the two neighbouring regions whose union adds least to the squares within, again and again."""
    regions = {cell: [cell] for cell in range(rows * cols)}
    sides = [(c, c + 1) for c in range(rows * cols) if (c + 1) % cols] + [
        (c, c + cols) for c in range((rows - 1) * cols)
    ]
    edges = {frozenset(side) for side in sides}

    def within(cells):
        return float(((vectors[cells] - vectors[cells].mean(dim=0)) ** 2).sum())

    def cost(edge):
        one, two = edge
        return within(regions[one] + regions[two]) - within(regions[one]) - within(regions[two])

    while len(regions) > count:
        one, two = min(edges, key=cost)
        regions[one] += regions.pop(two)
        edges = {frozenset(one if end == two else end for end in edge) for edge in edges}
        edges = {edge for edge in edges if len(edge) == 2}
    return {frozenset(cells) for cells in regions.values()}


def cells_of(labels):
    return {frozenset(torch.nonzero(labels.flatten() == k)[:, 0].tolist()) for k in labels.unique()}


@pytest.mark.parametrize("seed", range(3))
def test_regions_are_those_of_wards_method_written_out(seed):
    features = random_features(6, 6, 5, seed).cumsum(dim=0).double()
    labels = segment(features, 6, 6)
    unit = features.float() / features.float().norm(dim=1, keepdim=True)
    assert cells_of(labels) == slow_ward(unit.double(), 6, 6, int(labels.max()) + 1)


@settings(max_examples=50)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_every_region_is_connected_within_bounds_and_labelled_in_raster_order(shape, seed):
    rows, cols = shape
    labels = segment(random_features(rows, cols, seed=seed), rows, cols)
    count = int(labels.max()) + 1
    fewest, most = bounds(rows * cols)
    assert fewest <= count <= most
    assert all(is_connected(labels == k) for k in range(count))
    first = [labels.flatten().tolist().index(k) for k in range(count)]
    assert first == sorted(first)


def test_bounds_are_16_to_128_at_most_half_the_cells_and_one_a_cell_in_small_images():
    assert [bounds(n) for n in (1, 31, 32, 33, 100, 256, 4000)] == [
        (1, 1), (31, 31), (16, 16), (16, 16), (16, 50), (16, 128), (16, 128),
    ]  # fmt: skip
    assert (FEWEST, MOST) == (16, 128)
    assert segment(random_features(5, 6), 5, 6).flatten().tolist() == list(range(30))


def test_plainly_different_blocks_are_the_regions_and_their_number_is_found():
    features, board = blocks(12, 16)
    assert torch.equal(segment(features, 12, 16), board)


def test_more_detail_gives_more_regions():
    plain, _ = blocks(16, 16)
    busy = plain.clone()
    busy[::3] = random_features(16, 16)[::3]
    assert segment(busy, 16, 16).max() > segment(plain, 16, 16).max() + 8


def test_a_cell_of_huge_norm_joins_the_region_of_its_kind():
    features, board = blocks(12, 16)
    features[77] *= 500
    assert torch.equal(segment(features, 12, 16), board)


def test_an_image_all_alike_has_the_fewest_regions():
    assert int(segment(torch.ones(144, 8), 12, 12).max()) + 1 == FEWEST
    assert int(segment(torch.zeros(144, 8), 12, 12).max()) + 1 == FEWEST


def test_half_precision_wide_and_inference_features_are_taken():
    features, board = blocks(12, 16, dim=600)
    with torch.inference_mode():
        assert torch.equal(segment(features.to(torch.bfloat16), 12, 16), board)
    large, large_board = blocks(32, 32, dim=600)  # through the randomised components
    assert torch.equal(segment(large, 32, 32), large_board)


def test_segmenting_is_deterministic_and_draws_nothing_from_torchs_generator(sources):
    features = random_features(24, 24, 100)
    state = torch.random.get_rng_state()
    np_state = np.random.get_state()[1].copy()
    assert torch.equal(segment(features, 24, 24), segment(features, 24, 24))
    for source in sources.values():
        assert torch.equal(source(picture(), features, 24, 24, 0), source(picture(), features, 24, 24, 0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == np_state).all()


def test_features_that_are_not_finite_are_refused():
    features = random_features(8, 8)
    features[3] = torch.inf
    with pytest.raises(RegionError, match=r"not finite.*bfloat16"):
        segment(features, 8, 8)


def test_segmenting_takes_milliseconds():
    def fastest(rows, cols, dim, times):
        features, took = random_features(rows, cols, dim).cumsum(dim=0), []
        for _ in range(times):
            start = time.thread_time()
            segment(features, rows, cols)
            took.append(time.thread_time() - start)
        return min(took)

    assert fastest(12, 12, 256, 5) < 0.05  # s; 0.006 measured
    assert fastest(50, 80, 1024, 1) < 2  # 0.4 measured


@settings(max_examples=15)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_every_source_uses_all_its_labels_within_bounds_and_keeps_regions_connected(sources, shape, seed):
    rows, cols = shape
    fewest, most = bounds(rows * cols)
    features = random_features(rows, cols, seed=seed)
    for name, source in sources.items():
        labels = source(picture(seed=seed), features, rows, cols, seed)
        count = int(labels.max()) + 1
        assert labels.shape == (rows, cols)
        assert sorted(labels.unique().tolist()) == list(range(count))
        assert fewest <= count <= most
        if name in ("native", "dinov3", "slic", "grid"):
            assert all(is_connected(labels == k) for k in range(count))


@settings(max_examples=20)
@given(shape=SHAPES, count=st.integers(2, 60), seed=st.integers(0, 99))
def test_a_number_of_regions_is_kept_to_as_far_as_there_are_cells(shape, count, seed):
    rows, cols = shape
    features = random_features(rows, cols, seed=seed)
    for name in ("native", "random", "voronoi", "slic"):
        labels = SOURCES[name](picture(seed=seed), features, rows, cols, seed, count=count)
        assert sorted(labels.unique().tolist()) == list(range(min(count, rows * cols))), name
    labels = SOURCES["grid"](picture(), features, 12, 16, 0, count=48)
    assert sorted(labels.unique().tolist()) == list(range(48))


def test_a_source_is_named_with_its_number_of_regions():
    image, features = picture(), random_features(12, 16)
    grid = ImageGrid(torch.arange(192), 12, 16)
    found = regions_for([image], [grid], [features], "native:32")
    assert found.count == 32
    assert torch.equal(found.labels[0], segment(features, 12, 16, 32))
    for wrong in ("native:", "native:1", "native:x", "grid:-3", "native:²"):
        with pytest.raises(RegionError, match="Unknown source of regions"):
            regions_for([image], [grid], [features], wrong)


def test_grid_regions_are_rectangles_about_as_many_as_native():
    features, _ = blocks(12, 16)
    labels = SOURCES["grid"](picture(), features, 12, 16, 0)
    assert int(labels.max()) + 1 == 16
    for k in range(16):
        y, x = torch.nonzero(labels == k, as_tuple=True)
        assert len(y) == (y.max() - y.min() + 1) * (x.max() - x.min() + 1) == 12


def test_random_regions_are_as_many_as_native_of_equal_size_and_follow_the_seed():
    features = random_features(12, 16)
    one, again, other = (SOURCES["random"](picture(), features, 12, 16, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.max() == segment(features, 12, 16).max()
    assert one.flatten().bincount().max() - one.flatten().bincount().min() <= 1


@settings(max_examples=20)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_voronoi_regions_are_as_many_as_native_and_hold_the_cells_nearest_to_their_seeds(shape, seed):
    rows, cols = shape
    features = random_features(rows, cols, seed=seed)
    count = int(segment(features, rows, cols).max()) + 1
    order = torch.randperm(rows * cols, generator=torch.Generator().manual_seed(seed)).tolist()
    seeds = [divmod(cell, cols) for cell in order[:count]]
    slow = {}
    for cell in range(rows * cols):
        row, col = divmod(cell, cols)
        squares = [(row - y) ** 2 + (col - x) ** 2 for y, x in seeds]
        slow.setdefault(squares.index(min(squares)), set()).add(cell)
    labels = SOURCES["voronoi"](picture(), features, rows, cols, seed)
    assert cells_of(labels) == {frozenset(cells) for cells in slow.values()}
    assert int(labels.max()) + 1 == count


def test_voronoi_regions_follow_the_seed():
    features = random_features(12, 16)
    one, again, other = (SOURCES["voronoi"](picture(), features, 12, 16, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert cells_of(one) != cells_of(other)


def planted(rows, cols, down, across, pixels=26):
    """An image of four flat colours whose borders lie before cell row `down` and column `across`; each cell's colour."""
    quadrants = (np.arange(rows) >= down)[:, None] * 2 + (np.arange(cols) >= across)
    colours = np.array([[200, 40, 40], [40, 160, 60], [40, 60, 200], [230, 220, 90]], np.uint8)
    image = colours[quadrants].repeat(pixels, axis=0).repeat(pixels, axis=1)
    return Image.fromarray(image), torch.from_numpy(quadrants)


def crossing(labels, quadrants):
    """Regions that lie in more than one quadrant."""
    return sum(len(quadrants[labels == k].unique()) > 1 for k in range(int(labels.max()) + 1))


def test_superpixels_end_at_the_borders_of_flat_colours():
    image, quadrants = planted(11, 13, 3, 5)
    features, _ = blocks(11, 13)
    labels = SOURCES["slic"](image, features, 11, 13, 0)
    assert crossing(labels, quadrants) == 0
    assert int(labels.max()) + 1 == int(segment(features, 11, 13).max()) + 1
    assert (
        crossing(SOURCES["grid"](image, features, 11, 13, 0), quadrants) > 0
    )  # where no colour is looked at


@settings(max_examples=20)
@given(shape=SHAPES, data=st.data(), seed=st.integers(0, 99))
def test_any_labels_become_connected_regions_of_any_number(shape, data, seed):
    rows, cols = shape
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(1, rows * cols))
    labels = rng.integers(0, data.draw(st.integers(1, rows * cols)), rows * cols)
    found = _connected(labels, rows, cols, rng.random((rows * cols, 3)), count).reshape(rows, cols)
    assert sorted(np.unique(found)) == list(range(count))
    assert all(ndimage.label(found == k)[1] == 1 for k in range(count))


def test_connected_regions_of_the_right_number_stay_and_the_smallest_joins_the_neighbour_of_its_colour():
    labels = np.array([0, 0, 1, 1, 0, 0, 2, 1, 3, 3, 3, 3])  # three rows
    colours = np.array([[0.1, 0, 0], [0.9, 0, 0], [0.8, 0, 0], [0.2, 0, 0]])[labels]
    kept = _connected(labels, 3, 4, colours, 4)
    assert cells_of(torch.from_numpy(kept)) == cells_of(torch.from_numpy(labels))
    joined = _connected(labels, 3, 4, colours, 3)
    assert cells_of(torch.from_numpy(joined)) == {
        frozenset({0, 1, 4, 5}), frozenset({2, 3, 6, 7}), frozenset({8, 9, 10, 11}),
    }  # fmt: skip


def test_superpixels_without_their_package_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    for shape in ((2, 3), (12, 16)):
        with pytest.raises(RegionError, match=r"pip install 'eyeline\[regions\]'"):
            SOURCES["slic"](picture(), random_features(*shape), *shape, 0)


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
    monkeypatch.setattr("eyeline.regions.MAX_FINE_CELLS", 40)
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
        labels = SOURCES["dinov3"](image, torch.zeros(143, 1), 11, 13, 0, model=foundations[family])
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
        dinov3(picture(), random_features(6, 6), 6, 6, seed, model=foundations["dinov2"])
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


def grid_of(rows, cols):
    return ImageGrid(torch.arange(rows * cols), rows, cols)


def test_labels_run_on_over_the_images():
    regions = regions_for(
        [picture(), picture(128, 64)],
        [grid_of(2, 3), grid_of(8, 16)],
        [random_features(2, 3), random_features(8, 16)],
    )
    alone = segment(random_features(8, 16), 8, 16)
    assert regions.labels[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(regions.labels[1], alone + 6)
    assert regions.count == 6 + int(alone.max()) + 1
    assert regions.of_patch.tolist() == [*range(6), *(alone + 6).flatten().tolist()]
    assert regions.grids[0] == ((0, 1, 2), (3, 4, 5))


def test_each_image_may_have_a_source_of_its_own(tmp_path):
    np.save(tmp_path / "halves.npy", np.repeat([[7, 7, 9]], 2, axis=0))
    regions = regions_for(
        [picture(), picture()],
        [grid_of(2, 3), grid_of(2, 3)],
        [random_features(2, 3)] * 2,
        [tmp_path / "halves.npy", "grid"],
    )
    assert regions.grids == (((0, 0, 1), (0, 0, 1)), ((2, 3, 4), (5, 6, 7)))
    assert isinstance(regions, Regions)


def test_unknown_sources_and_wrong_numbers_of_them_are_refused():
    one = ([picture()], [grid_of(2, 3)], [random_features(2, 3)])
    for unknown in ("dino", "dinov3:", "grid:1", Path("voronoi")):
        with pytest.raises(
            RegionError,
            match=r"expected native, dinov3, .*, voronoi, .*native:32.*, dinov3:MODEL .*\.png.*\.json",
        ):
            regions_for(*one, unknown)
    with pytest.raises(RegionError, match="2 region sources were given for 1 images"):
        regions_for(*one, ["grid", "grid"])


def test_a_label_map_gives_each_cell_the_label_of_most_of_its_pixels(tmp_path):
    labels = np.zeros((60, 90), np.uint8)
    labels[:, 40:] = 200  # 20 of the middle cell's 30 columns
    labels[30:, :16] = 50
    labels[:3, :3] = 99  # too small to win a cell
    Image.fromarray(labels).save(tmp_path / "map.png")
    np.save(tmp_path / "map.npy", labels.astype(np.int32) - 50)
    for name in ("map.png", "map.npy"):
        assert from_label_map(tmp_path / name, 2, 3, 900, 600).tolist() == [[0, 2, 2], [1, 2, 2]]


@given(
    shape=SHAPES,
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kinds=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_the_vote_equals_counting_pixel_by_pixel(tmp_path_factory, shape, size, kinds, seed):
    (rows, cols), (height, width) = shape, size
    labels = np.random.default_rng(seed).integers(0, kinds, (height, width))
    path = tmp_path_factory.mktemp("maps") / "map.npy"
    np.save(path, labels)
    slow = np.zeros((rows, cols), int)
    for row in range(rows):
        for col in range(cols):
            ys = (
                [y for y in range(height) if y * rows // height == row]
                if height >= rows
                else [int((row + 0.5) * height / rows)]
            )
            xs = (
                [x for x in range(width) if x * cols // width == col]
                if width >= cols
                else [int((col + 0.5) * width / cols)]
            )
            slow[row, col] = np.bincount(labels[np.ix_(ys, xs)].flatten()).argmax()
    if len(np.unique(slow)) == 1 and rows * cols > 1:
        with pytest.raises(RegionError, match="one region of the whole image"):
            from_label_map(path, rows, cols, width, height)
    else:
        expected = np.unique(slow, return_inverse=True)[1].reshape(rows, cols)
        assert from_label_map(path, rows, cols, width, height).tolist() == expected.tolist()


def test_a_colour_or_palette_png_has_one_region_a_colour(tmp_path):
    colours = Image.new("RGB", (30, 20), "red")
    colours.paste("blue", (10, 0, 20, 20))
    colours.paste((255, 0, 1), (20, 0, 30, 20))
    colours.save(tmp_path / "rgb.png")
    colours.quantize(8).save(tmp_path / "palette.png")
    assert from_label_map(tmp_path / "rgb.png", 2, 3, 300, 200).tolist() == [[1, 0, 2], [1, 0, 2]]
    assert len(from_label_map(tmp_path / "palette.png", 2, 3, 300, 200).unique()) == 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 6), np.float32), "holds float32 of shape"),
        (np.zeros((4, 6, 3), int), "whole number for each pixel"),
        (np.zeros((0, 6), int), "whole number for each pixel"),
        (np.array({}, object), "cannot be read"),
        (np.zeros((4, 6), int), "one region of the whole image"),
        (np.arange(24).reshape(6, 4), "is 4 x 6 .* for an image of 60 x 40 pixels"),
    ],
    ids=["floats", "three axes", "empty", "objects", "one label", "turned"],
)
def test_a_label_map_that_does_not_fit_is_refused(tmp_path, array, message):
    np.save(tmp_path / "map.npy", array, allow_pickle=True)
    with pytest.raises(RegionError, match=message):
        from_label_map(tmp_path / "map.npy", 2, 3, 60, 40)


def test_a_label_map_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("broken.npy", "empty.npy", "missing.npy", "broken.png", "missing.png"):
        with pytest.raises(RegionError, match=name):
            from_label_map(tmp_path / name, 2, 3, 60, 40)
    huge = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), np.int64)) | {"shape": (10**6, 10**6)}
    with (tmp_path / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, huge)
    with pytest.raises(RegionError, match="huge"):
        from_label_map(tmp_path / "huge.npy", 2, 3, 60, 40)


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_a_cell_belongs_to_the_smallest_box_over_its_centre_and_the_rest_is_background(tmp_path):
    boxes = [[0, 0, 40, 40], [0, 0, 19, 19], [45, 21, 55, 39]]
    for content in (boxes, {"boxes": boxes}):
        labels = from_boxes(write(tmp_path / "boxes.json", content), 4, 6, 60, 40)
        assert labels.tolist() == [
            [1, 1, 0, 0, 3, 3],
            [1, 1, 0, 0, 3, 3],
            [0, 0, 0, 0, 2, 3],
            [0, 0, 0, 0, 2, 3],
        ]


def test_a_box_over_no_centre_takes_the_cell_it_lies_in(tmp_path):
    path = write(tmp_path / "boxes.json", [[56, 36, 60, 40], [0.5, 0.5, 2, 2]])
    assert from_boxes(path, 2, 3, 60, 40).tolist() == [[1, 2, 2], [2, 2, 0]]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "holds no boxes"),
        ({"regions": []}, "holds no boxes"),
        ([[0, 0, 10]], "Box 0"),
        ([[0, 0, 9, 9], [0, 0, "9", 9]], "Box 1"),
        ([[0, 0, True, 9]], "Box 0"),
        ([[9, 0, 3, 9]], "x0 < x1 <= 60"),
        ([[0, 0, 1000, 1000]], "in pixels"),
        ([[0, 0, float("nan"), 9]], "Box 0"),
        ([[0, 0, 9, 9], [0, 0, 9, 9]], "Box 0 .* has no cell of its own"),
        ([[0, 0, 60, 40]], "one region of the whole image"),
    ],
)
def test_boxes_that_make_no_regions_are_refused(tmp_path, boxes, message):
    with pytest.raises(RegionError, match=message) as caught:
        from_boxes(write(tmp_path / "boxes.json", boxes), 2, 3, 60, 40)
    assert "boxes.json" in str(caught.value)


def test_a_file_of_boxes_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "broken.json").write_text("[[0, 0")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.json").mkdir()
    for name in ("broken.json", "bytes.json", "folder.json", "missing.json"):
        with pytest.raises(RegionError, match=name):
            from_boxes(tmp_path / name, 2, 3, 60, 40)


@pytest.mark.parametrize(
    ("rows", "cols", "words"),
    [
        (slice(0, 2), slice(0, 2), "top left"),
        (slice(0, 2), slice(4, 5), "top"),
        (slice(4, 5), slice(4, 5), "centre"),
        (slice(4, 5), slice(8, 9), "right"),
        (slice(7, 9), slice(7, 9), "bottom right"),
        (slice(0, 9), slice(0, 2), "left side"),
        (slice(0, 9), slice(4, 5), "middle, top to bottom"),
        (slice(8, 9), slice(1, 9), "bottom edge"),
        (slice(0, 9), slice(0, 8), "most of the image"),
        (slice(0, 9, 4), slice(0, 9, 4), "all over the image"),
    ],
)
def test_where_says_where_a_region_lies(rows, cols, words):
    labels = torch.zeros(9, 9, dtype=torch.long)
    labels[rows, cols] = 5
    assert where(labels, 5) == words


def test_where_works_on_the_smallest_grids():
    assert where(torch.zeros(1, 1, dtype=torch.long), 0) == "centre"
    assert [where(torch.arange(6).view(2, 3), k) for k in range(6)] == [
        "top left", "top", "top right", "bottom left", "bottom", "bottom right",
    ]  # fmt: skip
