import csv
import math
import re

import pytest
import torch
from conftest import FAMILIES, build_tiny, picture, tiny_model
from slow_hiding import trace_of
from test_baselines_gradient import CELLS, LABELS, REGIONS, question_of, spans_of

from eyeline.evaluation.baselines import BASELINES, MEAN, READ_TWICE
from eyeline.evaluation.baselines.centre import centre_prior
from eyeline.evaluation.evaluate import Settings, attribute, choose_methods, evaluate
from eyeline.evaluation.meter import Meter
from eyeline.evaluation.page import better_readings, write_results
from eyeline.examples import Example
from eyeline.regions import Regions


def asked(model):
    return model, question_of(model), trace_of(model), spans_of()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_region_has_the_sum_of_a_gaussian_over_its_cells_whatever_the_span(family):
    effects = centre_prior(*asked(build_tiny(family)), REGIONS)
    expected = [0.0] * REGIONS.count
    for grid in LABELS:
        rows, cols = grid.shape
        for row in range(rows):
            for col in range(cols):
                down, across = (row + 0.5) / rows - 0.5, (col + 0.5) / cols - 0.5
                expected[grid[row, col]] += math.exp(-(down**2 + across**2) / (2 * 0.25**2))
    for row in effects:
        assert row.tolist() == pytest.approx(expected)


def test_the_middle_of_an_image_has_most_and_its_corners_alike_least(tiny):
    middle = Regions((torch.arange(35).view(5, 7),), 35)
    (effects,) = centre_prior(tiny, {}, trace_of(tiny), spans_of()[:1], middle).view(1, 5, 7)
    assert effects.argmax() == 17
    assert effects[2, 3] == 1
    torch.testing.assert_close(effects, effects.flip(0).flip(1))
    assert 0 < effects[0, 0] < effects[1:4, 1:6].min()


@pytest.mark.parametrize("name", READ_TWICE)
def test_a_mean_reading_is_the_sum_over_the_number_of_a_regions_tokens(tiny, name):
    sizes = torch.tensor([2, 3, 1, 2, 2, 1, 1])
    sums, means = BASELINES[name](*asked(tiny), REGIONS), BASELINES[name + MEAN](*asked(tiny), REGIONS)
    torch.testing.assert_close(means * sizes, sums)
    torch.testing.assert_close(
        BASELINES[name + MEAN](*asked(tiny), CELLS), BASELINES[name](*asked(tiny), CELLS)
    )


def test_a_region_without_tokens_has_a_mean_of_zero(tiny):
    effects = BASELINES["raw-attention" + MEAN](*asked(tiny), Regions(LABELS, 8))
    assert effects[:, 7].eq(0).all()
    assert effects[:, :7].gt(0).all()


@pytest.mark.parametrize("names", [("tam", "tam-mean", "ifr"), ("tam-mean", "ifr", "tam")])
def test_one_pass_serves_both_readings_of_a_rival_and_is_the_cost_of_each(tiny, names):
    with Meter(tiny) as meter:
        found = {
            name: (effects, cost)
            for name, effects, cost in attribute(
                {name: BASELINES[name] for name in names}, *asked(tiny), REGIONS
            )
        }
    assert meter.cost.forward_passes == 2  # one of tam, one of ifr
    assert found["tam"][1] == found["tam-mean"][1] != found["ifr"][1]
    assert all(cost.forward_passes == 1 for _, cost in found.values())
    for name, (effects, _) in found.items():
        torch.testing.assert_close(effects, BASELINES[name](*asked(tiny), REGIONS))


def test_of_two_readings_the_page_keeps_the_one_that_comes_first():
    ordered = [
        "exhaustive",
        "tam-mean",
        "eyeline (mine), joint",
        "rollout",
        "tam",
        "rollout-mean",
        "ifr-mean",
    ]
    assert better_readings(ordered) == [
        "exhaustive",
        "tam-mean",
        "eyeline (mine), joint",
        "rollout",
        "ifr-mean",
    ]


def test_the_page_shows_the_reading_of_higher_lds_and_the_table_has_both(tmp_path):
    tiny = tiny_model("qwen3_vl")
    chosen = choose_methods(tiny, ["random", "tam", "tam-mean", "ifr", "ifr-mean"], ())
    examples = [
        Example(f"scene-{seed}", picture(160, 96, seed=seed), "How many?", "3", "math", "bars")
        for seed in (0, 1)
    ]
    settings = Settings(tuple(chosen.methods), rates=(0.5,), subsets=6, max_new_tokens=8, regions="grid:4")
    assert len(list(evaluate(tiny, examples, chosen.methods, tmp_path / "run", settings))) == 2
    write_results(tiny, chosen, tmp_path / "run")
    with (tmp_path / "run" / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["metric"], row["family"]) == ("lds", "mean")]
    lds = {row["method"]: float(row["value"]) for row in rows}
    assert set(lds) == set(chosen.methods)
    page = (tmp_path / "run" / "page.html").read_text()
    shown = re.findall(r'<th scope="row">([^<]+)</th>', page.split("<h2>")[0])
    for name in ("tam", "ifr"):
        (kept,) = {name, name + MEAN} & set(shown)
        assert lds[kept] == max(lds[name], lds[name + MEAN])
    assert shown == sorted(shown, key=lambda each: -lds[each])
