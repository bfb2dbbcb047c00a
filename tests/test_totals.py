"""The table of what answers rest on: its metrics by hand, its rows on traces that are made up, and FlashTrace by loops."""

import dataclasses

import pytest
import torch
from conftest import tiny_model
from streams import random_estimator
from test_features import PICTURES, QUESTION, trace_of
from test_traces import TRUE, traced

from eyeline.errors import EstimatorError
from eyeline.evaluation.baselines.flashtrace import flash_trace
from eyeline.evaluation.baselines.ifr import flows
from eyeline.evaluation.totals import OURS, auc, average_precision, check_estimator, named_first, table
from eyeline.spans import Span
from eyeline.teacher_forcing import teacher_force
from eyeline.through import Chances

CHANGES = torch.tensor([True, False, True, False])


def test_metrics_are_those_worked_out_by_hand():
    values = torch.tensor([0.9, 0.5, 0.5, 0.1])
    assert auc(values, CHANGES) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert average_precision(values, CHANGES) == pytest.approx((1 + 2 / 3) / 2)
    assert named_first(values, CHANGES) == 1
    assert auc(-values, CHANGES) == pytest.approx(0.5 / 4)


@pytest.fixture(scope="module")
def rows():
    card = {"chances": Chances(1.0, 1.0, 1.0, 9.0).to_card()}
    estimator = dataclasses.replace(random_estimator(tiny_model("qwen3_vl")), text=TRUE, card=card)
    traces = []
    for seed in range(12):
        one = dataclasses.replace(traced(seed), family="math" if seed % 2 else "code")
        rests = torch.tensor(one.rests_on(estimator).changes)
        changes = torch.cat(
            [(rests >= rests.median() + 1e-6).float(), torch.ones(1)]
        )  # as predicted, to the region
        traces.append(
            dataclasses.replace(one, changes=changes, rivals={"opposite": -rests, "same": rests.clone()})
        )
    unanswered = dataclasses.replace(traced(99), family="math", answered=False)
    return table([*traces, unanswered], estimator)


def found(rows, method, metric, at="", family="mean"):
    (row,) = [
        row for row in rows if (row.method, row.metric, row.at, row.family) == (method, metric, at, family)
    ]
    return row


def test_ours_is_what_events_carry_and_every_rival_is_paired_with_it(rows):
    ours, other, same = (found(rows, name, "AUC") for name in (OURS, "opposite", "same"))
    assert ours.value == 1
    assert ours.ahead is None
    assert (other.value, other.ahead) == (0, 1)
    assert (same.ahead, same.ahead_low, same.ahead_high) == (0, 0, 0)
    assert ours.count == 12
    assert found(rows, OURS, "AUC", family="code").count == 6


def test_chances_are_held_against_the_share_that_changes(rows):
    score, base = (
        found(rows, OURS, "Brier score", family="all"),
        found(rows, "base rate", "Brier score", family="all"),
    )
    share = found(rows, OURS, "Brier score over the base rate's", family="all")
    assert share.value == pytest.approx(score.value / base.value)
    bands = [row for row in rows if row.metric == "reliability" and row.method == OURS]
    assert sum(row.count for row in bands) == 12 * 4
    said = [row for row in rows if row.metric == "reliability" and row.method == "said"]
    for row in said:
        low, high = map(float, row.at.split(" to "))
        assert low <= row.value <= high


def test_sources_are_measured_in_thinking_and_in_answers_apart(rows):
    ours = found(rows, OURS, "LDS of sources", "answer")
    assert ours.value > 0.95  # the weights are those that made the falls
    assert found(rows, "nearest", "LDS of sources", "answer").value < ours.value
    assert found(rows, OURS, "LDS of sources", "thinking").count == 12


def test_a_region_that_holds_evidence_is_named_by_whoever_names_it_first(rows):
    assert found(rows, "measured total", "first holds evidence").count == 12


def test_flashtrace_hands_on_what_falls_on_the_thinking_once_a_hop():
    model = tiny_model("glm4v")
    inputs, ids = model.inputs(list(PICTURES), QUESTION), trace_of(model)
    fallen = flash_trace(model, inputs, ids, (5, 7), 3)
    with torch.inference_mode():
        trace = teacher_force(model, inputs, ids)
        spans = [Span(0, "answer", 5, 7, "", False)] + [
            Span(at + 1, "thinking", at, at + 1, "", False) for at in range(5)
        ]
        shares = flows(model, trace, spans).positions
    left = [float(shares[0, trace.prompt_length + at]) for at in range(5)]
    expected = shares[0, trace.patches].clone()
    torch.testing.assert_close(fallen[0], expected)
    for hop in range(1, 4):
        expected = expected + sum(share * shares[1 + at, trace.patches] for at, share in enumerate(left))
        torch.testing.assert_close(fallen[hop], expected)
        left = [
            sum(left[via] * float(shares[1 + via, trace.prompt_length + at]) for via in range(5))
            for at in range(5)
        ]
    assert (fallen[1] > fallen[0]).any()


def test_an_estimator_that_knows_nothing_of_earlier_text_is_refused():
    with pytest.raises(EstimatorError, match="says nothing of earlier text; fit that with"):
        check_estimator(random_estimator(tiny_model("qwen3_vl")))
