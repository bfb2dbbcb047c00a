"""The leak map against a slow definition, and what it does where it is stopped, coarse, or not alone."""

import threading

import pytest
import torch
from conftest import picture, tiny_model
from slow_hiding import slow_blur, slow_pixels

from eyeline import leak
from eyeline.capture import AttentionCapture
from eyeline.features import Parts, own_parts, pool
from eyeline.leak import fill_regions, groups_of, leak_map, movement, shares, split_groups, spreads
from eyeline.regions import Regions
from eyeline.teacher_forcing import Vision, prompt_alone, see

QUESTION = "How many?"
PICTURES = [picture(96, 64, seed=1), picture(128, 96, seed=2)]
LABELS = (torch.tensor([[0, 0, 1], [2, 2, 1]]), torch.tensor([[3, 3, 4, 4], [3, 5, 5, 4], [6, 5, 7, 7]]))


def asked(model, count=2):
    """Inputs of some pictures, and regions of several cells each."""
    inputs = model.inputs(PICTURES[:count], QUESTION)
    labels = []
    for image, grid in zip(model.image_grids(inputs), LABELS, strict=False):
        rows, cols = torch.arange(image.rows) % grid.shape[0], torch.arange(image.cols) % grid.shape[1]
        labels.append(grid[rows][:, cols])
    return inputs, Regions(tuple(labels), 1 + max(int(grid.max()) for grid in labels))


def mapped(model, inputs, regions, hiding="pixels", stopped=lambda: False):
    return leak_map(fill_regions(model, inputs, regions, hiding, stopped), regions)


def slow_map(model, inputs, regions, fill=slow_pixels):
    """Region by region: filled by hand, the tower run on it alone, every token's way measured by itself."""
    prompt, labels = prompt_alone(model, inputs), regions.of_patch
    moved = torch.zeros(regions.count, len(labels))
    with torch.inference_mode():
        was = see(model, prompt, inputs["pixel_values"][None])
        for region in range(regions.count):
            now = see(model, prompt, fill(model, inputs, labels == region)[None])
            layers = list(zip([was.features, *was.deepstack], [now.features, *now.deepstack], strict=True))
            for patch in range(len(labels)):
                for before, after in layers:
                    usual = sum(float(token.norm()) for token in before[0]) / len(labels)
                    moved[region, patch] += (
                        float((after[0, patch] - before[0, patch]).norm()) / usual / len(layers)
                    )
    return moved / moved.sum(0)


@pytest.mark.parametrize("count", [1, 2])
def test_the_map_equals_its_slow_definition(tiny, count):
    inputs, regions = asked(tiny, count)
    found = mapped(tiny, inputs, regions)
    torch.testing.assert_close(found, slow_map(tiny, inputs, regions), rtol=1e-3, atol=1e-4)
    own = torch.nn.functional.one_hot(regions.of_patch, regions.count).T.bool()
    assert found[own].min() > found[~own].median(), "most of a token is its own region's"
    assert found[~own].max() > 0.05, "and some has spread"


def test_another_fill_has_a_map_of_its_own(tiny):
    inputs, regions = asked(tiny, 1)
    found = mapped(tiny, inputs, regions, "blur")
    torch.testing.assert_close(found, slow_map(tiny, inputs, regions, slow_blur), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, mapped(tiny, inputs, regions), atol=1e-3)


@pytest.mark.parametrize("at_once", [1, 18, 10**6])
def test_shares_of_a_token_add_up_to_one_however_many_cells_the_tower_works_on_at_once(
    tiny, at_once, monkeypatch
):
    inputs, regions = asked(tiny)
    expected = mapped(tiny, inputs, regions)
    torch.testing.assert_close(expected.sum(0), torch.ones(len(regions.of_patch)))
    assert expected.min() >= 0
    monkeypatch.setattr(leak, "CELLS_AT_ONCE", at_once)
    torch.testing.assert_close(mapped(tiny, inputs, regions), expected, rtol=1e-3, atol=1e-4)


def test_an_image_that_no_fill_changes_has_shares_of_nothing(tiny):
    inputs, regions = asked(tiny, 1)
    flat = {**inputs, "pixel_values": torch.full_like(inputs["pixel_values"], 0.25)}
    found = mapped(tiny, flat, regions)
    assert found.isfinite().all()
    assert shares(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def test_movement_is_relative_to_the_size_of_each_layer_and_the_mean_of_all():
    before = Vision(torch.tensor([[[3.0, 4.0], [0.0, 5.0]]]), [torch.tensor([[[0.0, 1.0], [0.0, 3.0]]])])
    after = Vision(before.features + torch.tensor([0.0, 1.0]), [before.deepstack[0] * 2])
    assert movement(before, after).tolist() == [pytest.approx([(0.2 + 0.5) / 2, (0.2 + 1.5) / 2])]


# --- stopped


def test_stopping_early_leaves_each_token_to_its_own_region(tiny, monkeypatch):
    inputs, regions = asked(tiny)
    own = torch.nn.functional.one_hot(regions.of_patch, regions.count).T.float()
    assert torch.equal(mapped(tiny, inputs, regions, stopped=lambda: True), own)
    monkeypatch.setattr(leak, "CELLS_AT_ONCE", 1)
    asks = []

    def after_three():
        asks.append(1)
        return len(asks) > 3

    assert torch.equal(mapped(tiny, inputs, regions, stopped=after_three), own)
    assert len(asks) == 4, "it is asked between passes"
    monkeypatch.setattr(leak, "EXACT", 0)
    monkeypatch.setattr(leak, "GROUPS", 4)
    assert torch.equal(mapped(tiny, inputs, regions, stopped=lambda: True), own), "of groups too"


def test_gathering_by_own_tokens_alone_is_pooling(tiny):
    inputs, regions = asked(tiny)
    labels, count = regions.of_patch, regions.count
    parts = own_parts(labels, count)
    values = torch.randn(2, 3, len(labels), generator=torch.Generator().manual_seed(1))
    whole = pool(values, labels, count)
    torch.testing.assert_close(parts.gather(values), whole)
    shared = Parts(labels, count, leak_map([], regions), parts.without)
    torch.testing.assert_close(shared.gather(values), whole)
    shared = Parts(labels, count, mapped(tiny, inputs, regions), parts.without)
    gathered = shared.gather(values)
    torch.testing.assert_close(gathered, torch.einsum("abp,rp->abr", values, shared.shares))
    torch.testing.assert_close(gathered.sum(-1), values.sum(-1))  # nothing is lost, nothing counts twice


# --- what is kept of each pass, to be read again


def test_of_each_fill_its_own_tokens_are_kept_and_those_that_it_moves_most(tiny, monkeypatch):
    inputs, regions = asked(tiny)
    labels, count = regions.of_patch, regions.count
    whole = fill_regions(tiny, inputs, regions)
    for at_most in (0, 4, len(labels)):
        monkeypatch.setattr(leak, "READ_AGAIN", at_most * count)
        for region, (fill, every) in enumerate(zip(fill_regions(tiny, inputs, regions), whole, strict=True)):
            own = (labels == region).nonzero()[:, 0].tolist()
            others = sorted(set(range(len(labels))) - set(own), key=lambda patch: -float(every.moved[patch]))
            expected = sorted(own + others[: max(0, at_most - len(own))])
            assert fill.patches.tolist() == expected
            torch.testing.assert_close(fill.vision.features, every.vision.features[:, expected])
            for layer, all_of_it in zip(fill.vision.deepstack, every.vision.deepstack, strict=True):
                torch.testing.assert_close(layer, all_of_it[:, expected])


def test_of_images_filled_by_groups_only_what_lies_inside_is_kept(tiny, monkeypatch):
    inputs, regions = asked(tiny)
    monkeypatch.setattr(leak, "EXACT", 0)
    monkeypatch.setattr(leak, "GROUPS", 4)
    of = groups_of(regions)[regions.of_patch]
    for group, fill in enumerate(fill_regions(tiny, inputs, regions)):
        assert fill.patches.tolist() == (of == group).nonzero()[:, 0].tolist()


# --- of large images


@pytest.mark.parametrize("groups", [16, 3, 1])
def test_groups_keep_shares_adding_up_and_tokens_inside_with_their_own_region(tiny, groups, monkeypatch):
    inputs, regions = asked(tiny)
    monkeypatch.setattr(leak, "EXACT", 0)
    monkeypatch.setattr(leak, "GROUPS", groups)
    seen = []
    monkeypatch.setattr(leak, "see", lambda *args: seen.append(len(args[2])) or see(*args))
    found = mapped(tiny, inputs, regions)
    of = groups_of(regions)
    count = len(of.unique())
    assert sum(seen) == 1 + count, "a pass a group, and one with nothing filled"
    torch.testing.assert_close(found.sum(0), torch.ones(len(regions.of_patch)), rtol=1e-4, atol=1e-5)
    assert found.min() >= 0
    for patch, label in enumerate(regions.of_patch.tolist()):
        same = of == of[label]
        others = same & (torch.arange(regions.count) != label)
        assert found[others, patch].abs().max().item() == 0 if others.any() else True
        assert found[label, patch] > 0


def test_groups_are_at_most_so_many_near_each_other_and_of_one_image(monkeypatch):
    _, regions = asked(tiny_model("qwen3_vl"))
    for most in (16, 4, 2, 1):
        monkeypatch.setattr(leak, "GROUPS", most)
        of = groups_of(regions)
        images = [set(of[grid.unique()].tolist()) for grid in regions.labels]
        assert not images[0] & images[1]
        assert all(len(groups) <= max(1, most // 2) for groups in images)
        assert sorted(of.unique().tolist()) == list(range(len(of.unique())))
    monkeypatch.setattr(leak, "GROUPS", 2)
    line = Regions((torch.tensor([[0, 1, 2, 3]]),), 4)
    of = groups_of(line)
    assert of[0] == of[1] != of[2] == of[3]


def test_as_many_groups_as_regions_are_the_exact_map(tiny, monkeypatch):
    inputs, regions = asked(tiny, 1)
    expected = mapped(tiny, inputs, regions)
    monkeypatch.setattr(leak, "EXACT", 0)
    monkeypatch.setattr(leak, "GROUPS", 99)
    order = groups_of(regions)
    assert len(order.unique()) == regions.count
    torch.testing.assert_close(mapped(tiny, inputs, regions), expected, rtol=1e-3, atol=1e-4)


def test_outside_a_group_what_it_moves_is_shared_by_nearness():
    regions = Regions((torch.tensor([[0, 1, 2, 2, 2]]),), 3)
    moved = torch.tensor([[1.0, 1.0, 0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0, 1.0]])
    found = split_groups(moved, torch.tensor([0, 0, 1]), regions)
    assert found[:, :2].tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    near = [1 / (1 + 2.0**2), 1 / (1 + 1.0**2)]  # of regions 0 and 1 to the third cell: areas of 1
    assert found[:2, 2].tolist() == pytest.approx([0.5 * near[0] / sum(near), 0.5 * near[1] / sum(near)])
    assert found[2].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]


# --- beside a capture


def test_only_fills_spread():
    assert {way: spreads(way) for way in ("pixels", "blur", "inpaint", "tokens", "attention")} == {
        "pixels": True, "blur": True, "inpaint": True, "tokens": False, "attention": False,
    }  # fmt: skip


def test_another_threads_capture_records_nothing_of_the_maps_passes(tiny):
    inputs, regions = asked(tiny)
    prompt = prompt_alone(tiny, inputs)
    with torch.inference_mode(), AttentionCapture(tiny, inputs) as capture:
        tiny.hf.model(**inputs, use_cache=False)
        assert capture.vision_features is not None
        features, keys = (
            torch.cat(list(capture.vision_features)).clone(),
            capture.image_columns(slice(None))[0].clone(),
        )
        pending, found = capture.pending_bytes, []
        worker = threading.Thread(target=lambda: found.append(mapped(tiny, inputs, regions)))
        worker.start()
        worker.join()
        assert capture.pending_bytes == pending
        assert torch.equal(torch.cat(list(capture.vision_features)), features)
        assert torch.equal(capture.image_columns(slice(None))[0], keys)
    torch.testing.assert_close(found[0], mapped(tiny, inputs, regions))
    with torch.inference_mode():
        whole = see(tiny, prompt, inputs["pixel_values"][None]).features[0]
    torch.testing.assert_close(features, whole, rtol=1e-3, atol=1e-4)
