"""Metrics against their definitions, written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from eyeline import metrics


def drawn(seed, spans=3, regions=7, subsets=20):
    rng = torch.Generator().manual_seed(seed)
    effects = torch.randn(spans, regions, generator=rng)
    hidden = torch.rand(subsets, regions, generator=rng) < 0.5
    falls = torch.randn(spans, subsets, generator=rng)
    return effects, hidden, falls


def test_lds_and_r2_are_the_correlations_of_scipy():
    effects, hidden, falls = drawn(0)
    predicted = effects @ hidden.float().T
    for span in range(3):
        rank, linear = spearmanr(predicted[span], falls[span]), pearsonr(predicted[span], falls[span])
        assert float(metrics.lds(predicted, falls)[span]) == pytest.approx(rank.statistic, abs=1e-6)
        assert float(metrics.r2_span(predicted, falls)[span]) == pytest.approx(linear.statistic**2, abs=1e-5)


def test_a_prediction_that_is_constant_scores_nothing_and_the_truth_everything():
    effects, hidden, _ = drawn(1)
    truth = metrics.joint(effects, hidden)
    assert metrics.lds(torch.zeros_like(truth), truth).tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(metrics.lds(truth, truth.exp()), torch.ones(3, dtype=torch.double))


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.1, 10), shift=st.floats(-3, 3))
def test_lds_is_blind_to_a_methods_unit(seed, factor, shift):
    effects, hidden, falls = drawn(seed)
    predicted = metrics.joint(effects, hidden)
    expected = metrics.lds(predicted, falls)
    torch.testing.assert_close(metrics.lds(metrics.joint(effects * factor, hidden), falls), expected)
    torch.testing.assert_close(metrics.lds(predicted, falls * factor + shift), expected)


def test_the_top_regions_are_the_highest_the_first_of_equal_ones_and_all_where_there_are_fewer():
    effects = torch.tensor([[1.0, 3.0, 3.0, -5.0], [0.0, 0.0, 0.0, 0.0]])
    assert metrics.top_regions(effects, 2).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]
    assert metrics.top_regions(effects, 9).all()


def test_an_area_is_the_mean_height_of_the_curve_between_its_steps():
    values = torch.tensor([[0.0, 1.0, 3.0]])  # at none, one and three of four regions
    expected = (0.25 * (0 + 1) / 2 + 0.5 * (1 + 3) / 2) / 0.75
    assert float(metrics.area(values, (1, 3), 4)) == pytest.approx(expected)
    assert float(metrics.area(torch.full((1, 3), 2.0), (1, 3), 4)) == pytest.approx(2)


def test_r2_in_nats_is_one_for_the_truth_nothing_for_the_mean_and_negative_beyond():
    alone = torch.tensor([0.0, 1.0, 2.0, 5.0])
    assert metrics.r2_nats(alone, alone) == 1
    assert metrics.r2_nats(torch.full((4,), 2.0), alone) == pytest.approx(0)
    assert metrics.r2_nats(-alone, alone) < 0
    assert metrics.calibrated_r2_nats(alone * 0.01, alone) == pytest.approx(1)


def test_the_slope_is_how_much_measured_falls_grow_with_predicted_ones():
    predicted = torch.tensor([0.0, 1.0, 2.0, -3.0])
    assert metrics.slope(predicted, 1.3 * predicted) == pytest.approx(1.3)
    assert metrics.slope(predicted, torch.tensor([9.0, 1.0, 2.0, -3.0])) == pytest.approx(1), (
        "a line through 0"
    )
    assert metrics.slope(torch.zeros(4), predicted) == 0


def test_heat_is_empty_under_a_tenth_of_the_largest_measured_fall():
    shown = torch.tensor([[0.19, -5.0], [0.21, 0.0], [0.0, 0.0]])
    falls = torch.tensor([[2.0, -9.0, 1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert metrics.empty_heat(shown, falls).tolist() == [True, False, False]
    assert metrics.false_heat(shown).tolist() == pytest.approx([5.0, 0.21, 0.0])


@pytest.mark.parametrize("alone", [[], [2.0], [0.0, 0.0, 0.0], [1.0, 1.0 + 1e-7, 1.0]])
def test_effects_that_do_not_differ_have_no_r2_in_nats(alone):
    alone = torch.tensor(alone)
    assert metrics.r2_nats(alone + 1, alone) is None
    assert metrics.calibrated_r2_nats(alone + 1, alone) is None


def test_a_single_region_varies_in_no_span():
    assert metrics.varies(torch.tensor([[3.0], [0.0]])).tolist() == [False, False]


def test_areas_shared_by_boxes_and_regions_are_counted_pixel_by_pixel():
    labels = torch.tensor([[0, 0, 1], [2, 1, 1]])
    width, height = 90, 40
    boxes = ((10, 5, 70, 25), (61, 0, 90, 40), (0, 0, 0, 0))
    covers, areas, sizes = metrics.shared_areas(labels, boxes, width, height)
    pixel = labels.repeat_interleave(20, 0).repeat_interleave(30, 1)
    for number, (left, top, right, bottom) in enumerate(boxes):
        inside = pixel[top:bottom, left:right]
        assert covers[number].tolist() == [float((inside == region).sum()) for region in range(3)]
        assert float(sizes[number]) == inside.numel()
    assert areas.tolist() == [float((pixel == region).sum()) for region in range(3)]


def test_pointing_hits_where_half_of_the_region_is_evidence_or_a_quarter_of_a_box_is_covered():
    areas, boxes = torch.tensor([100.0, 100.0, 1000.0, 100.0]), torch.tensor([400.0])
    covers = torch.tensor([[50.0, 49.0, 100.0, 0.0]])
    hits = [bool(metrics.pointing(torch.eye(4)[region][None], covers, areas, boxes)) for region in range(4)]
    assert hits == [True, False, True, False]


def test_the_bootstrap_weighs_families_alike_and_its_interval_narrows_with_images():
    few = {"math": [1.0, 0.0], "code": [0.0] * 50}
    mean, low, high = metrics.bootstrap(few)
    assert mean == pytest.approx(0.25)
    assert low <= mean <= high
    many = {"math": [1.0, 0.0] * 200, "code": [0.0] * 50}
    _, narrow_low, narrow_high = metrics.bootstrap(many)
    assert narrow_high - narrow_low < (high - low) / 3
    deviation = math.sqrt(0.25 / 400) / 2  # of the mean of 400 coins, halved by the other family
    assert narrow_high - narrow_low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_a_family_of_a_single_image_leaves_no_interval_and_the_same_mean():
    values = {"math": [0.3, 0.5], "code": [0.9]}
    assert metrics.bootstrap(values) == (pytest.approx((0.4 + 0.9) / 2), None, None)
    assert metrics.bootstrap({"math": [0.3]}) == (0.3, None, None)
    assert metrics.bootstrap({**values, "code": []})[1] is not None  # a family without images is none


@given(seed=st.integers(0, 2**32 - 1))
def test_coverage_is_the_share_inside_of_each_image_and_of_large_effects(seed):
    rng = torch.Generator().manual_seed(seed)
    alone = torch.randn(30, generator=rng)
    low = alone - torch.rand(30, generator=rng) + 0.2
    high = low + 0.6
    image = torch.tensor([0] * 5 + [2] * 24 + [7])  # some images have no pair
    shares = []
    for one in (0, 2, 7):
        held = [bool(low[at] <= alone[at] <= high[at]) for at in range(30) if image[at] == one]
        shares.append(sum(held) / len(held))
    assert metrics.coverage(low, high, alone, image) == pytest.approx(sum(shares) / 3)
    large = [at for at in range(30) if abs(float(alone[at])) > 1]
    held = [bool(low[at] <= alone[at] <= high[at]) for at in large]
    expected = sum(held) / len(held) if large else None
    assert metrics.coverage_of_large(low, high, alone, 1.0) == (
        None if expected is None else pytest.approx(expected)
    )


def test_coverage_of_large_effects_is_nothing_where_there_are_none_and_ends_lie_inside():
    alone = torch.tensor([0.5, -0.5, 0.1])
    assert metrics.coverage_of_large(alone, alone, alone, 0.5) is None
    assert metrics.coverage_of_large(alone, alone, alone, 0.4) == 1
    assert metrics.inside(alone, alone, alone).all()


def test_a_constant_width_holds_the_share_that_is_asked_for():
    effects, alone = torch.zeros(101), torch.linspace(-1, 1, 101)
    width = metrics.constant_width(effects, alone, 0.9)
    held = metrics.inside(effects - width / 2, effects + width / 2, alone)
    assert float(held.double().mean()) == pytest.approx(0.9, abs=0.02)
    assert metrics.median_width(torch.tensor([0.0, 1.0, -5.0]), torch.tensor([1.0, 3.0, 5.0])) == 2
