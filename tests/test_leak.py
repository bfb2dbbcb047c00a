"""In what parts visual tokens show regions: against a slow definition by the tower alone, one region at a time."""

import pytest
import torch
from conftest import picture

from eyeline import leak
from eyeline.ablation import fill_pixels
from eyeline.leak import groups_of, leak_map, shares, split_groups, spreads
from eyeline.regions import Regions
from eyeline.teacher_forcing import prompt_alone, see

PICTURES = (picture(), picture(64, 96, seed=1))  # 2 rows of 3 visual tokens, and 3 of 2


def regions_of_two():
    """Five regions of two images, of unequal sizes; one is in two pieces."""
    return Regions((torch.tensor([[0, 1, 1], [2, 2, 0]]), torch.tensor([[3, 3], [4, 3], [4, 4]])), 5)


@pytest.fixture
def question(tiny):
    inputs = tiny.inputs(list(PICTURES), "How many?")
    assert [(grid.rows, grid.cols) for grid in tiny.image_grids(inputs)] == [(2, 3), (3, 2)]
    return inputs


def tower(model, inputs):
    """All that the vision tower puts out of a prompt's images, DeepStack's too: one matrix a layer."""
    with torch.inference_mode():
        vision = see(model, prompt_alone(model, inputs), inputs["pixel_values"][None])
    return [layer[0].float() for layer in (vision.features, *vision.deepstack)]


def slow_map(model, inputs, sets, labels, hiding="pixels"):
    """Set by set of regions, layer by layer, token by token: how far filling the set moves it, as a share of all movements."""
    before, moved = tower(model, inputs), torch.zeros(len(sets), len(labels))
    for number, regions in enumerate(sets):
        hidden = torch.tensor([int(label) in regions for label in labels])
        after = tower(model, fill_pixels(model, inputs, hidden, hiding))
        for was, now in zip(before, after, strict=True):
            usual = sum(row.norm() for row in was) / len(was)
            for token in range(len(labels)):
                moved[number, token] += (now[token] - was[token]).norm() / usual / len(before)
    return moved


@pytest.mark.parametrize("hiding", ["pixels", "blur"])
def test_the_map_equals_its_slow_definition_one_region_at_a_time(tiny, question, hiding, monkeypatch):
    regions = regions_of_two()
    moved = slow_map(tiny, question, [{region} for region in range(5)], regions.of_patch, hiding)
    expected = moved / moved.sum(0)
    assert 0.01 < float(expected[0, 1]) < 0.99, "a token shows more than its own region"
    for at_once in (leak.CELLS_AT_ONCE, 1):  # all regions in one pass of the tower, or each in its own
        monkeypatch.setattr(leak, "CELLS_AT_ONCE", at_once)
        found = leak_map(tiny, question, regions, hiding)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found.sum(0), torch.ones(12))
        assert (found >= 0).all()


def test_images_do_not_move_each_others_tokens(tiny, question):
    found = leak_map(tiny, question, regions_of_two())
    assert found[:3, 6:].abs().max() < 1e-3
    assert found[3:, :6].abs().max() < 1e-3


def test_stopping_early_leaves_every_region_its_own_tokens(tiny, question, monkeypatch):
    regions = regions_of_two()
    own = (torch.arange(5)[:, None] == regions.of_patch).float()
    assert torch.equal(leak_map(tiny, question, regions, stopped=lambda: True), own)
    monkeypatch.setattr(leak, "CELLS_AT_ONCE", 1)
    asked = iter([False, False, True])  # stopped before the third of five passes
    assert torch.equal(leak_map(tiny, question, regions, stopped=lambda: next(asked)), own)


def test_of_a_large_image_groups_are_filled_and_a_groups_own_tokens_are_their_own_regions(
    tiny, question, monkeypatch
):
    regions, labels = regions_of_two(), regions_of_two().of_patch
    monkeypatch.setattr(leak, "EXACT", 0)
    monkeypatch.setattr(leak, "GROUPS", 4)
    groups = groups_of(regions)
    assert len(groups.unique()) == 4
    found = leak_map(tiny, question, regions)
    torch.testing.assert_close(found.sum(0), torch.ones(12))
    sets = [{region for region in range(5) if groups[region] == group} for group in range(4)]
    moved = slow_map(tiny, question, sets, labels)
    of_groups = torch.stack([found[sorted(each)].sum(0) for each in sets])
    torch.testing.assert_close(of_groups, moved / moved.sum(0), rtol=1e-3, atol=1e-5)
    for token, label in enumerate(labels.tolist()):
        others = [region for region in sets[int(groups[label])] if region != label]
        assert not found[others, token].any()
        assert found[label, token] > 0


def test_groups_hold_regions_near_each_other_of_one_image_each():
    columns = torch.arange(40).expand(3, 40)  # forty narrow regions side by side
    regions = Regions((columns, columns + 40), 80)
    groups = groups_of(regions)
    assert sorted(groups.unique().tolist()) == list(range(leak.GROUPS))
    assert not set(groups[:40].tolist()) & set(groups[40:].tolist())
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        assert torch.equal(members, torch.arange(int(members[0]), int(members[-1]) + 1))


def test_what_a_group_moves_outside_itself_is_its_regions_by_nearness_and_size():
    """A region's weight is its area over its area plus the squared distance of its centre, in cells."""
    regions = Regions((torch.tensor([[0, 0, 1, 2]]),), 3)
    parts = split_groups(
        torch.tensor([[1.0, 1.0, 1.0, 0.5], [0.2, 0.2, 0.2, 0.5]]), torch.tensor([0, 0, 1]), regions
    )
    near = torch.tensor([2 / (2 + 2.5**2), 1 / (1 + 1.0**2)])  # centres at 0.5 and 2, the token at 3
    torch.testing.assert_close(parts[:2, 3], 0.5 * near / near.sum())
    assert parts[:2, :3].tolist() == [[1, 1, 0], [0, 0, 1]]
    torch.testing.assert_close(parts[2], torch.tensor([0.2, 0.2, 0.2, 0.5]))


def test_shares_add_up_to_one_and_a_token_that_nothing_moves_has_none():
    found = shares(torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]]))
    assert found.tolist() == [[0.25, 0.0, 0.5], [0.75, 0.0, 0.5]]


def test_only_filling_pixels_hides_what_has_spread():
    assert [name for name in ("pixels", "blur", "inpaint", "tokens", "attention") if spreads(name)] == [
        "pixels", "blur", "inpaint",
    ]  # fmt: skip
