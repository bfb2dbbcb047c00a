import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_runs import make_run, with_rests_on

from eyeline.errors import DataError
from eyeline.events import ImageInfo, SpanAttribution, Start
from eyeline.looking import (
    LEAST,
    centres,
    components,
    entropy,
    gaze,
    look_backs,
    looking,
    new_evidence,
    path_length,
    reliance,
    since_look,
    tortuosity,
    unexplored,
)

NAN = math.nan


def on(*regions: int | None, of: int = 4) -> torch.Tensor:
    """Spans that rest on one region each, with 1 nat; None: on none."""
    rows = torch.zeros(len(regions), of, dtype=torch.float64)
    for row, region in zip(rows, regions, strict=True):
        if region is not None:
            row[region] = 1.0
    return rows


def test_middles_lie_in_a_picture_of_all_images_whose_diagonal_is_one():
    start = Start("0", "m", None, "nats", (ImageInfo(30, 40, 1, 2),), (((0, 1),),))
    places, areas = centres(start)
    assert places.tolist() == [pytest.approx([0.15, 0.4]), pytest.approx([0.45, 0.4])]  # 3, 4, 5
    assert areas.tolist() == [0.5, 0.5]
    both = (ImageInfo(20, 20, 1, 1), ImageInfo(20, 10, 1, 1))
    places, areas = centres(Start("0", "m", None, "nats", both, (((0,),), ((1,),))))
    assert places.tolist() == [
        pytest.approx([0.5 / 10**0.5, 0.5 / 10**0.5]), pytest.approx([2 / 10**0.5, 0.5 / 10**0.5])
    ]  # fmt: skip
    assert areas.tolist() == pytest.approx([1 / 3, 2 / 3])


def test_a_span_looks_at_the_middle_of_what_it_rests_on_and_not_at_what_speaks_against_it():
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    rows = torch.tensor([[3.0, 1.0, -9.0], [LEAST / 2, 0.0, -9.0]], dtype=torch.float64)
    points = gaze(rows, places)
    assert points[0].tolist() == [0.25, 0.0]
    assert points[1].isnan().all()


def test_a_path_goes_past_spans_that_do_not_look_and_its_tortuosity_is_that_of_a_straight_way():
    line = torch.tensor([[0.0, 0.0], [NAN, NAN], [1.0, 0.0], [3.0, 0.0]])
    assert (path_length(line), tortuosity(line)) == (3.0, 1.0)
    corner = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    assert (path_length(corner), tortuosity(corner)) == (7.0, pytest.approx(1.4))
    assert tortuosity(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])) == math.inf
    assert path_length(line[:1]) == 0.0
    assert math.isnan(tortuosity(line[:1]))
    assert math.isnan(path_length(line[1:2]))


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_tortuosity_has_no_unit_and_a_path_knows_no_direction(seed, count):
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert tortuosity(points * 7 + 3) == pytest.approx(tortuosity(points), rel=1e-6)
    assert path_length(points.flip(0)) == pytest.approx(path_length(points))
    assert tortuosity(points) >= 1.0


def test_a_look_back_is_to_a_region_that_was_left():
    rows = on(0, 0, None, 0, 1, 0, 2, None, 2, 1)
    assert look_backs(rows).tolist() == [False] * 5 + [True] + [False] * 3 + [True]


def test_entropy_counts_over_how_many_regions_a_span_is_spread():
    rows = torch.tensor([[2.0, 0.0, -1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).double()
    assert entropy(rows)[:2].exp().tolist() == pytest.approx([1.0, 4.0])
    assert entropy(rows)[2].isnan()


def test_evidence_is_new_once():
    rows = on(0, 0, 1, None, 1)
    rows[2, 0] = 1.0
    assert new_evidence(rows).tolist() == pytest.approx([1.0, 0.0, 0.5, NAN, 0.0], nan_ok=True)


def test_what_no_span_rests_on_is_unexplored_by_its_worth():
    worth = torch.tensor([1.0, 3.0, 4.0, 0.0]).double()
    assert unexplored(on(0, 2), worth) == pytest.approx(3 / 8)
    assert unexplored(on(None), worth) == 1.0
    assert math.isnan(unexplored(on(0), worth * 0))


def test_reliance_is_of_a_token_and_time_since_a_look_is_in_tokens():
    assert reliance(torch.tensor([6.0, -2.0]), torch.tensor([3, 4])).tolist() == [2.0, -0.5]
    assert since_look(on(None, 0, None, None, 1, 1), torch.tensor([2, 3, 4, 5, 6, 7])).tolist() == [0, 2, 0, 4, 9, 0]  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.integers(3, 8))
def test_the_papers_trajectory_keeps_distances_that_two_components_hold(seed, count):
    rng = torch.Generator().manual_seed(seed)
    plane = torch.randn(count, 2, generator=rng, dtype=torch.float64)
    rows = plane @ torch.randn(2, 6, generator=rng, dtype=torch.float64) + 5
    found = components(rows)
    assert found.shape == (count, 2)
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(rows, rows))


def test_the_papers_trajectory_is_of_the_regions_with_most_in_all():
    rows = torch.zeros(5, 40, dtype=torch.float64)
    rows[:, :32] = 1.0
    rows[2, 35] = 1.5  # beneath the 32 others in sum
    assert components(rows).abs().max() == 0.0


def test_a_run_is_measured_as_its_parts_are():
    run = with_rests_on(make_run(), {0: 0.94, 9: 0.5})
    found = looking(run.events)
    rows = torch.tensor(
        [span.shown for span in run.events if isinstance(span, SpanAttribution)], dtype=torch.float64
    )
    places, areas = centres(run.start)
    assert (found.spans, found.looks, found.look_backs) == (3, 3, 0)
    assert found.path_length == path_length(gaze(rows, places)) > 0
    assert found.unexplored == pytest.approx(1 - float(areas[[0, 1, 9]].sum()))
    assert found.unexplored_evidence == pytest.approx(7 * 0.02 / (0.94 + 0.5 + 8 * 0.02), abs=0.02)
    assert found.since_look == (0, 0, 0)
    assert len(found.reliance) == 3
    assert looking(make_run().events).unexplored_evidence is None


def test_attention_and_sizes_that_are_not_calibrated_are_not_measured_nor_a_run_without_spans():
    with pytest.raises(DataError, match="contributions in nats"):
        looking(make_run("attention").events)
    with pytest.raises(DataError, match="calibrated or fitted on the model"):
        looking(make_run("relative").events)
    with pytest.raises(DataError, match="contributions in nats"):
        looking(make_run().events[:2])
