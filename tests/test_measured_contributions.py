"""Contributions measured along orders of regions."""

import itertools

import pytest
import torch

from eyeline.ablation import measured_contributions, prefixes
from eyeline.game import orders


def test_prefixes_are_the_sets_that_arise_along_each_order_and_along_its_reverse():
    along = torch.tensor([[2, 0, 3, 1], [0, 1, 2, 3]])
    expected = []
    for order in along.tolist():
        for way in (order, order[::-1]):
            expected += [[region in way[:step] for region in range(4)] for step in range(1, 4)]
    assert prefixes(along).tolist() == expected


def test_measured_contributions_are_the_mean_shares_of_each_order_and_its_reverse():
    rng, along = torch.Generator().manual_seed(3), orders(5, count=3, seed=1)
    falls = {subset: torch.randn(2, generator=rng) for subset in itertools.product((False, True), repeat=5)}
    falls[(False,) * 5] = torch.zeros(2)
    measured = torch.stack([falls[tuple(subset)] for subset in prefixes(along).tolist()])
    found = measured_contributions(measured, falls[(True,) * 5], along)
    expected = torch.zeros(3, 5, 2)
    for number, order in enumerate(along.tolist()):
        for way in (order, order[::-1]):
            for step, region in enumerate(way):
                before, after = (tuple(each in way[:at] for each in range(5)) for at in (step, step + 1))
                expected[number, region] += (falls[after] - falls[before]) / 2
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), falls[(True,) * 5].expand(3, 2))


def test_measured_contributions_over_all_orders_are_shapley_values():
    """By Shapley's own formula: the mean over sizes of sets, then over sets, of what a region adds to them."""
    rng, regions = torch.Generator().manual_seed(4), 4
    falls = {
        subset: float(torch.randn((), generator=rng))
        for subset in itertools.product((False, True), repeat=regions)
    }
    falls[(False,) * regions] = 0.0
    along = torch.tensor(list(itertools.permutations(range(regions))))
    measured = torch.tensor([[falls[tuple(subset)]] for subset in prefixes(along).tolist()])
    whole = torch.tensor([falls[(True,) * regions]])
    found = measured_contributions(measured, whole, along).mean(0)[:, 0]
    for region in range(regions):
        of_sizes = [[] for _ in range(regions)]
        for subset, fall in falls.items():
            if not subset[region]:
                more = tuple(hidden or at == region for at, hidden in enumerate(subset))
                of_sizes[sum(subset)].append(falls[more] - fall)
        expected = sum(sum(each) / len(each) for each in of_sizes) / regions
        assert float(found[region]) == pytest.approx(expected, abs=1e-5)
