"""Paired differences between methods, against their plain definition."""

import csv
import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from conftest import picture, tiny_model
from scipy.stats import pearsonr, spearmanr

from eyeline.evaluation.evaluate import Evaluated, Settings, choose_methods, evaluate
from eyeline.evaluation.meter import Cost
from eyeline.evaluation.page import write_results
from eyeline.evaluation.table import Row, table
from eyeline.evaluation.versus import Difference, differences
from eyeline.examples import Example
from eyeline.training.collect import ALONE, WHOLE

FAMILIES = {"math": 5, "code": 3}
RATES = torch.tensor([0.5] * 12 + [0.25] * 12 + [ALONE] * 4 + [WHOLE])
NAMES = ("ours", "worse", "other")


def image(family: str, number: int) -> Evaluated:
    """One whose effects are as hard to predict as its number says, for "ours" hardly less than for "worse"."""
    rng = torch.Generator().manual_seed(100 * len(family) + number)
    falls, noise, another = torch.randn(3, 3, len(RATES), generator=rng)
    falls[2, :24] = 0.001 * falls[2, :24]  # counts in no correlation
    hard = 0.3 + 0.7 * number
    predicted = {
        "ours": falls + hard * noise,
        "worse": falls + (hard + 0.3) * noise,
        "other": falls + hard * another,
    }
    hidden = {name: torch.rand(3, 3, generator=rng) + (name == "ours") for name in NAMES}
    four, three = torch.zeros(3, 4), torch.zeros(3, 3)
    return Evaluated(
        f"{family}-{number}", family, (), 9, {}, torch.zeros(len(RATES), 4, dtype=torch.bool), RATES, falls, None, None,
        dict.fromkeys(NAMES, four), {}, predicted, hidden, dict.fromkeys(NAMES, three), (),
    )  # fmt: skip


IMAGES = [image(family, number) for family, count in FAMILIES.items() for number in range(count)]


def mean_of_spans(one: Evaluated, name: str, metric: str, rate: float) -> float:
    drawn = (rate == RATES).nonzero()[:, 0].tolist()
    found = []
    for predicted, actual in zip(
        one.predicted[name][:, drawn].tolist(), one.falls[:, drawn].tolist(), strict=True
    ):
        if np.std(actual, ddof=1) >= 0.05:
            found.append(
                spearmanr(predicted, actual).statistic
                if metric == "lds"
                else pearsonr(predicted, actual).statistic ** 2
            )
    assert len(found) == 2
    return sum(found) / len(found)


def literal(name: str, metric: str, rate: float, families: dict[str, int]) -> tuple[float, float, float]:
    """Both methods' means over families, less one another, as they are and of 2000 draws of the same images for both."""
    values = {
        each: {
            family: [mean_of_spans(one, each, metric, rate) for one in IMAGES if one.family == family] for family in families
        }
        for each in (name, "ours")
    }  # fmt: skip
    rng = np.random.default_rng(0)
    drawn = {family: rng.integers(count, size=(2000, count)) for family, count in families.items()}

    def mean(each: str, places: dict[str, list[int]]) -> float:
        of_family = [
            sum(values[each][family][at] for at in some) / len(some) for family, some in places.items()
        ]
        return sum(of_family) / len(of_family)

    as_they_are = {family: list(range(count)) for family, count in families.items()}
    apart = []
    for draw in range(2000):
        places = {family: some[draw].tolist() for family, some in drawn.items()}
        apart.append(mean(name, places) - mean("ours", places))
    low, high = np.percentile(apart, [2.5, 97.5])
    return mean(name, as_they_are) - mean("ours", as_they_are), low, high


@pytest.mark.parametrize("name", ["worse", "other"])
def test_a_difference_and_its_interval_are_of_both_methods_means_on_the_same_drawn_images(name):
    found = {(one.method, one.metric, one.at, one.family): one for one in differences(IMAGES, "ours")}
    for metric in ("lds", "r2_span"):
        for rate in (0.5, 0.25):
            for family, families in (("mean", FAMILIES), ("math", {"math": 5})):
                one = found[name, metric, f"{rate:.2g}", family]
                expected = literal(name, metric, rate, families)
                assert (one.value, one.low, one.high) == pytest.approx(expected, abs=1e-5)
                assert (one.versus, one.count) == ("ours", sum(families.values()))
    assert not [key for key in found if key[0] == "ours"]


def test_drops_without_the_first_five_regions_are_compared_too():
    drops = [one for one in differences(IMAGES, "ours") if one.metric == "top_drop"]
    (found,) = (one for one in drops if (one.method, one.family) == ("other", "mean"))
    apart = {family: [] for family in FAMILIES}
    for one in IMAGES:
        apart[one.family].append(float((one.hidden["other"][:, 2] - one.hidden["ours"][:, 2]).mean()))
    expected = sum(sum(some) / len(some) for some in apart.values()) / len(apart)
    assert (found.at, found.value) == ("5", pytest.approx(expected, abs=1e-6))
    assert found.verdict == "behind"


def own_lds() -> dict[str, Row]:
    costs, spans = dict.fromkeys(NAMES, Cost(1.0)), tuple({"channel": "thinking"} for _ in range(3))
    rows = table([dataclasses.replace(one, costs=costs, spans=spans) for one in IMAGES], {})
    return {row.method: row for row in rows if (row.metric, row.at, row.family) == ("lds", "0.5", "mean")}


def lds_over(versus: str) -> dict[str, Difference]:
    found = differences(IMAGES, versus)
    return {one.method: one for one in found if (one.metric, one.at, one.family) == ("lds", "0.5", "mean")}


def test_a_difference_is_decided_that_the_methods_own_intervals_would_leave_open():
    rows = own_lds()
    assert rows["worse"].high > rows["ours"].value > rows["worse"].value > rows["ours"].low
    worse, ours = lds_over("ours")["worse"], lds_over("worse")["ours"]
    assert (worse.verdict, ours.verdict) == ("behind", "ahead")
    assert worse.value == pytest.approx(rows["worse"].value - rows["ours"].value, abs=1e-6)
    assert (ours.value, ours.low, ours.high) == pytest.approx(
        (-worse.value, -worse.high, -worse.low), abs=1e-6
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, "ahead"),
        (-0.03, -0.01, "behind"),
        (-0.01, 0.03, "undecided"),
        (0.0, 0.03, "undecided"),
        (None, None, ""),
    ],
)
def test_a_method_is_ahead_only_where_the_whole_interval_is(low, high, verdict):
    assert Difference("a", "b", "lds", "0.5", "mean", 0.01, low, high, 9).verdict == verdict


def test_images_of_which_no_span_counts_and_families_of_one_image_leave_no_false_interval():
    still = [image("science", 0)]
    still[0].falls[:] = 0
    found = [
        one for one in differences([*IMAGES, *still], "ours") if (one.method, one.metric) == ("other", "lds")
    ]
    assert {one.family for one in found} == {"math", "code", "mean"}
    single = [
        one for one in differences([image("math", 0), image("code", 0)], "ours") if one.method == "other"
    ]
    assert all((one.low, one.high, one.verdict) == (None, None, "") for one in single)
    assert all(math.isfinite(one.value) for one in single)
    assert list(differences([], "ours")) == []


def test_the_page_and_a_table_of_its_own_tell_who_is_ahead_of_the_first_method(tmp_path):
    model = tiny_model("qwen3_vl")
    chosen = choose_methods(model, ["raw-attention", "random", "tam", "tam-mean"], ())
    examples = [
        Example(f"scene-{seed}", picture(160, 96, seed=seed), "How many?", "3", "math", "bars")
        for seed in range(3)
    ]
    settings = Settings(tuple(chosen.methods), rates=(0.5,), subsets=6, max_new_tokens=8, regions="grid:4")
    assert len(list(evaluate(model, examples, chosen.methods, tmp_path / "run", settings))) == 3
    write_results(model, chosen, tmp_path / "run")
    with (tmp_path / "run" / "versus.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["metric"], row["family"]) == ("lds", "mean")]
    assert {row["method"] for row in rows} == {"random", "tam", "tam-mean"}
    assert {row["versus"] for row in rows} == {"raw-attention"}
    page = (tmp_path / "run" / "page.html").read_text()
    section = page.split("<h2>Ahead of or behind raw-attention</h2>")[1].split("<h2>")[0]
    shown = re.findall(
        r'<th scope="row">([^<]+)</th>\s*<td>([+-]\d\.\d+) (ahead|behind|undecided)<small>', section
    )
    assert len(shown) == 2  # of two readings the better one
    for method, value, _ in shown:
        (row,) = [row for row in rows if row["method"] == method]
        assert float(row["value"]) == pytest.approx(float(value), abs=6e-4)
