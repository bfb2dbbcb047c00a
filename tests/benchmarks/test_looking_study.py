"""The study of looking: what it keeps of a trace, and that what it says of measures is true of scores whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.looking_study import (
    AGREEMENT,
    BAG,
    ORDERED,
    SHUFFLED,
    TEXT,
    Fits,
    measure,
    ordered_measures,
    study,
)
from benchmarks.looking_traces import KINDS, PARTS, SAMPLES, Traced, keep, parts_of, read_traced, scene, trace
from eyeline import load
from eyeline.evaluation.evaluate import one_estimator
from eyeline.metrics import auc


def traced(seed: int, right: bool, wander: bool) -> Traced:
    """Five spans of four tokens over five regions in a row: one after the other, or to and fro."""
    rng = np.random.default_rng(seed)
    path = [0, 4, 1, 3, 2] if wander else [0, 1, 2, 3, 4]
    contributions = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed)) * 0.02
    contributions[range(5), path] = 2.0
    starts = torch.arange(0, 20, 4)
    random = torch.Generator().manual_seed(seed)
    return Traced(
        KINDS[seed % len(KINDS)], bool(seed % 2), right, int(rng.integers(0, SAMPLES + 1)), torch.stack([starts, starts + 4], 1),
        contributions, torch.full((5,), 2.0), torch.stack([torch.linspace(0, 0.9, 5), torch.zeros(5)], 1), torch.full((5,), 0.2),
        torch.randn(20, generator=random), torch.rand(20, generator=random),
        torch.randn(5, 40, generator=random).half(), torch.randn(5, 40, generator=random).half(),
    )  # fmt: skip


def many(count: int, truth) -> list[Traced]:
    rng = np.random.default_rng(0)
    found = []
    for seed in range(count):
        wander = bool(rng.random() < 0.5)
        found.append(traced(seed, bool(rng.random() < truth(wander)), wander))
    return found


def test_the_area_under_the_curve_is_that_of_a_library_ties_included():
    rng = np.random.default_rng(0)
    score, right = rng.integers(0, 9, 300).astype(float), rng.random(300) < 0.7
    assert auc(torch.from_numpy(score), torch.from_numpy(right)) == pytest.approx(roc_auc_score(right, score))


def fits(traces: list[Traced]) -> Fits:
    right = np.array([each.right for each in traces])
    places = np.arange(len(traces))
    folds = [(places[places % 5 != fold], places[places % 5 == fold]) for fold in range(5)]
    return Fits(measure(traces, len(PARTS) - 1), right, folds)


def test_wandering_that_tells_wrong_from_right_is_found_and_the_same_spans_in_another_order_tell_nothing():
    found = fits(many(600, lambda wander: 0.1 if wander else 0.9))
    everything = np.ones(600, dtype=bool)
    ordered = found.row("all", everything, 1.0, (ORDERED,), (TEXT, BAG))
    shuffled = found.row("all", everything, 1.0, (SHUFFLED,), (TEXT, BAG))
    assert ordered.low > 0.2
    assert shuffled.low < 0.02
    assert shuffled.high < ordered.low
    assert ordered.low < ordered.value < ordered.high


def test_measures_that_say_nothing_of_being_right_add_nothing():
    found = fits(many(600, lambda _: 0.7))
    row = found.row("all", np.ones(600, dtype=bool), 1.0, (BAG, ORDERED), (TEXT,))
    assert row.low < 0.02
    assert (row.count, row.added_to) == (600, TEXT)
    assert row.wrong == pytest.approx(180, abs=40)


def test_a_beginning_of_a_trace_knows_nothing_of_its_end():
    one = traced(3, right=True, wander=True)
    other = replace(
        one, contributions=one.contributions.clone().index_fill_(0, torch.tensor([3, 4]), 9.0),
        log_probs=one.log_probs.clone().index_fill_(0, torch.arange(12, 20), -9.0),
    )  # fmt: skip
    half = PARTS.index(0.5)
    for name, values in measure([one], half).items():
        assert np.array_equal(values, measure([other], half)[name], equal_nan=True), name
    whole = len(PARTS) - 1
    assert not np.array_equal(measure([one], whole)[TEXT], measure([other], whole)[TEXT])
    assert ordered_measures(one, 5)[0] > 2 * ordered_measures(traced(3, right=True, wander=False), 5)[0]


def test_every_group_has_all_rows_after_each_part():
    parts = (0.5,)
    rows = study(many(100, lambda wander: 0.5 if wander else 0.9), parts, draws=20)
    groups = {row.scenes for row in rows}
    assert groups == {"all", "as photographed", "blurred", *(f"{kind} left out" for kind in KINDS)}
    assert {row.part for row in rows} == set(parts)
    assert len({(row.scenes, row.part, row.measures, row.added_to) for row in rows}) == len(rows)
    assert {row.count for row in rows if row.scenes == "all"} == {100}


def test_what_is_kept_of_a_trace_is_read_again(tmp_path):
    model = load("mini")
    known, _ = one_estimator(model, None)
    example, picture, blur = scene(2)
    found = trace(model, known, example, picture, blur)
    assert len(found.log_probs) == len(found.entropies) == int(found.spans[-1, 1])
    assert bool((found.log_probs <= 0).all())
    assert bool((found.entropies >= 0).all())
    assert float(found.log_probs.mean()) > -0.5  # greedy
    assert 0 <= found.agree <= SAMPLES
    assert found.states.shape == (len(PARTS), model.adapter.text_config(model.hf).hidden_size)
    keep(tmp_path / "00002.safetensors", found)
    (again,) = read_traced(tmp_path)
    for name, value in vars(found).items():
        same = getattr(again, name)
        assert torch.equal(value, same) if isinstance(value, torch.Tensor) else value == same, name


def test_every_second_scene_of_a_family_is_blurred_and_all_are_the_same_each_time():
    seen = [scene(place) for place in range(2 * len(KINDS))]
    assert [example.family for example, _, _ in seen] == [*KINDS, *KINDS]
    assert [blur for _, _, blur in seen] == [False] * len(KINDS) + [True] * len(KINDS)
    again = scene(len(KINDS))
    assert np.array_equal(np.asarray(again[1]), np.asarray(seen[len(KINDS)][1]))
    plain = replace(again[0]).images[0]
    assert plain is not None
    assert parts_of(3) == [1, 1, 2, 2, 3]
    assert parts_of(1) == [1] * 5


def test_agreement_is_a_share():
    traces = many(20, lambda _: 0.5)
    shares = measure(traces, 0)[AGREEMENT]
    assert shares.min() >= 0
    assert shares.max() <= 1
