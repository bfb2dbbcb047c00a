"""Heat against evidence on examples worked out by hand, and against slow definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eyeline.evaluation.evidence import (
    covered_cells,
    energy,
    evidence_cells,
    pointing_cell,
    rank_auc,
    recall_at,
    spread_over_cells,
)

# 2 rows of 3 cells; the evidence is the right column
HEAT = torch.tensor([1.0, 2.0, 4.0, 0.0, -3.0, 2.0])
INSIDE = torch.tensor([False, False, True, False, False, True])


def test_cells_are_covered_by_the_share_that_lies_in_boxes():
    covered = covered_cells([(64, 0, 96, 32), (80, 32, 96, 64), (0, 60, 8, 64)], (96, 64), 2, 3)
    torch.testing.assert_close(covered, torch.tensor([0, 0, 1, 8 * 4 / 1024, 0, 0.5]))
    assert evidence_cells(covered).tolist() == [False, False, True, False, False, True]
    small = covered_cells([(0, 60, 8, 64)], (96, 64), 2, 3)
    assert evidence_cells(small).tolist() == [False, False, False, True, False, False]
    assert not evidence_cells(covered_cells([], (96, 64), 2, 3)).any()
    assert covered_cells([(-5, -5, 500, 500)], (96, 64), 2, 3).tolist() == [1.0] * 6


def test_a_region_shares_its_number_evenly_among_its_cells():
    shared = spread_over_cells(torch.tensor([6.0, 1.0]), torch.tensor([0, 0, 1, 0]))
    assert shared.tolist() == [2.0, 2.0, 1.0, 2.0]


def test_energy_is_the_share_of_the_heat_above_nought():
    assert energy(HEAT, INSIDE.float()) == pytest.approx(6 / 9)
    assert energy(HEAT, INSIDE.float() / 2) == pytest.approx(3 / 9)
    assert energy(-HEAT.abs(), INSIDE.float()) == 0.0


def test_rank_auc_counts_pairs_that_are_in_order():
    assert rank_auc(HEAT, INSIDE) == pytest.approx((4 + 3.5) / 8)  # 2.0 is level with one of four others
    assert rank_auc(torch.ones(6), INSIDE) == 0.5
    assert math.isnan(rank_auc(HEAT, torch.ones(6, dtype=torch.bool)))
    assert math.isnan(rank_auc(HEAT, torch.zeros(6, dtype=torch.bool)))


def test_recall_counts_evidence_among_the_hottest_cells_and_shares_cells_that_are_alike():
    assert recall_at(HEAT, INSIDE, 1 / 6) == 0.5
    assert recall_at(HEAT, INSIDE, 2 / 6) == 0.5 + 0.5 / 2  # one of two cells of 2.0, one of them evidence
    assert recall_at(HEAT, INSIDE, 3 / 6) == 1.0
    assert recall_at(HEAT, INSIDE, 0.01) == 0.5  # at least one cell
    assert recall_at(torch.zeros(6), INSIDE, 0.5) == 0.5
    assert math.isnan(recall_at(HEAT, torch.zeros(6, dtype=torch.bool), 0.5))


def test_pointing_asks_of_the_hottest_cell_alone():
    assert pointing_cell(HEAT, INSIDE) == 1.0
    assert pointing_cell(-HEAT, INSIDE) == 0.0
    assert pointing_cell(torch.zeros(6), INSIDE) == pytest.approx(1 / 3)


CELLS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12)


@given(CELLS)
def test_rank_auc_is_that_of_all_pairs(cells):
    heat = torch.tensor([float(value) for value, _ in cells])
    inside = torch.tensor([held for _, held in cells])
    pairs = [(a > b) + (a == b) / 2 for a in heat[inside].tolist() for b in heat[~inside].tolist()]
    found = rank_auc(heat, inside)
    assert math.isnan(found) if not pairs else found == pytest.approx(sum(pairs) / len(pairs))


@given(CELLS, st.sampled_from((0.01, 0.1, 0.2, 0.5, 1.0)), st.integers(0, 10**6))
def test_recall_is_its_mean_over_orders_of_cells_that_are_alike(cells, share, seed):
    heat = torch.tensor([float(value) for value, _ in cells])
    inside = torch.tensor([held for _, held in cells])
    if not inside.any():
        return
    count = max(1, round(share * len(heat)))
    rng = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(400):
        shuffled = torch.randperm(len(heat), generator=rng)
        top = shuffled[heat[shuffled].argsort(descending=True, stable=True)[:count]]
        found.append(float(inside[top].sum() / inside.sum()))
    assert recall_at(heat, inside, share) == pytest.approx(sum(found) / len(found), abs=0.12)
