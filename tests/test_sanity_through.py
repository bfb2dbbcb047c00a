"""Chances of a shuffled model, regions that a counterfactual changes, and single sentences hidden, by hand and by the command."""

import csv

import pytest
import torch
from click.testing import CliRunner
from conftest import tiny_model
from test_sanity import CELLS, answered, changed, estimator_of, example
from test_traces import traced

import eyeline
from eyeline import metrics
from eyeline.evaluation import sanity_through
from eyeline.evaluation.sanity_through import (
    MEASURED,
    OURS,
    Told,
    check_alone,
    check_chances,
    differing_regions,
)
from eyeline.events import RestsOn
from eyeline.examples import write_examples
from eyeline.scenes import counterfactual, sample
from eyeline.text_ablation import hide_text, of_spans
from eyeline.training.traces import Settings

BOUNDS = ((0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 21))


def test_a_region_is_named_with_confidence_from_an_even_chance_on():
    rests = RestsOn((0.5, 0.49, 0.9, 0.0), whole=1.0, total=(), direct=(), sources=())
    made = traced(0)
    told = Told(CELLS, made.game, made.features.float(), rests)
    assert list(check_chances({"mine": told})) == [
        ("weights", "mine", "named with confidence", 0.5),
        ("weights", "mine", "largest chance", pytest.approx(0.9)),
    ]


def test_regions_that_differ_are_those_of_changed_cells():
    model = tiny_model("qwen3_vl")
    found = differing_regions(model, answered(model), CELLS, example("other", changed()))
    assert found.tolist() == [False, False, False, False, True]


def test_single_sentences_are_hidden_for_real_and_their_sum_held_against_random_halves():
    model, settings = tiny_model("qwen3_vl"), Settings(subsets=8)
    own = answered(model, BOUNDS)
    weights = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    estimator = estimator_of(model)
    regions, game, features = sanity_through.read_whole(model, estimator, own, settings)
    told = Told(regions, game, features, RestsOn((), 0.0, (), (), ()))
    found = list(check_alone(model, weights, own, told, 3, settings))
    assert {method for _, method, _, _ in found} == {OURS, MEASURED}
    rng, expected = torch.Generator().manual_seed(3), []
    for place in (4, 5):
        halves = torch.rand(8, place, generator=rng) < 0.5
        alone, together = (
            hide_text(
                model, own.inputs, own.ids, own.spans[place],
                of_spans(sets, own.spans[:place], own.spans[place].start),
            ).sum(1)
            for sets in (torch.eye(place).bool(), halves)
        )  # fmt: skip
        expected.append(float(metrics.spearman((halves.float() @ alone)[None], together[None])[0]))
    measured = [value for _, method, _, value in found if method == MEASURED]
    assert measured == pytest.approx(expected, abs=1e-4)


def test_the_command_writes_all_three_checks(tmp_path, monkeypatch):
    model = eyeline.load("mini")
    monkeypatch.setattr(sanity_through, "load", lambda _: model)
    monkeypatch.setattr(sanity_through, "Settings", lambda max_spans: Settings(subsets=4, max_spans=1))
    seeds = (8_000_001, 8_000_003)
    scenes = [each for seed in seeds for each in (sample("math", seed), counterfactual("math", seed))]
    write_examples([each for each in scenes if each is not None], tmp_path / "data")
    asked = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "s.csv")]
    result = CliRunner().invoke(sanity_through.main, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with (tmp_path / "s.csv").open() as file:
        rows = {
            (row["check"], row["method"], row["measure"]): float(row["value"]) for row in csv.DictReader(file)
        }
    trained, shuffled = (rows["weights", name, "largest chance"] for name in ("trained", "randomised"))
    assert 0 <= shuffled <= 1
    assert shuffled != trained
    assert 0 <= rows["pairs", OURS, "differs where named first"] <= 1
    assert 0 < rows["pairs", "by chance", "differs where named first"] < 0.5
    assert {method for check, method, _ in rows if check == "sources"} == {OURS, MEASURED}
