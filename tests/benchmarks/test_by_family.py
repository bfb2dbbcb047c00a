"""Where the fitted estimator stands among rivals, by family."""

import pytest

from benchmarks.by_family import cells
from eyeline.errors import DataError

OURS = "eyeline (fitted)"
VALUES = {
    "math": {
        OURS: 0.7,
        "eyeline (fitted), joint": 0.9,
        "exhaustive": 0.8,
        "ifr": 0.5,
        "tam": 0.6,
        "random": 0.75,
        "ridge-256": 0.95,
    },
    "code": {
        OURS: 0.7,
        "exhaustive": 0.6,
        "ifr": 0.5,
        "eyeline (paper-attention)": 0.65,
        "eyeline (general)": 0.9,
    },
    "general": {OURS: 0.7, "exhaustive": 0.9, "ifr": 0.71, "tam": 0.2},
}


def rows(values):
    return [
        {"method": method, "metric": metric, "at": at, "family": family, "value": str(value)}
        for family, some in values.items()
        for method, value in some.items()
        for metric, at in (("lds", "0.5"), ("lds", "0.25"), ("top_drop", "5"))
    ]


APART = [
    {
        "method": "tam",
        "versus": OURS,
        "metric": "lds",
        "at": "0.5",
        "family": "math",
        "value": "-0.1",
        "low": "-0.2",
        "high": "0.05",
    },
    {
        "method": "tam",
        "versus": OURS,
        "metric": "lds",
        "at": "0.25",
        "family": "math",
        "value": "-0.3",
        "low": "",
        "high": "",
    },
    {
        "method": "ifr",
        "versus": OURS,
        "metric": "lds",
        "at": "0.5",
        "family": "general",
        "value": "0.01",
        "low": "",
        "high": "",
    },
]


def test_a_cell_names_the_best_rival_and_exhaustive_ablation_is_none():
    found = {(cell.family, cell.metric): cell for cell in cells("m", rows(VALUES), APART)}
    assert len(found) == 6
    assert (found["math", "lds"].rival, found["math", "lds"].stands) == ("tam", "second to exhaustive")
    assert (found["code", "lds"].rival, found["code", "lds"].stands) == ("eyeline (paper-attention)", "best")
    assert (found["general", "top_drop"].rival, found["general", "top_drop"].stands) == ("ifr", "behind")


def test_how_far_it_is_ahead_is_the_paired_difference_the_other_way_round():
    found = {(cell.family, cell.metric): cell for cell in cells("m", rows(VALUES), APART)}
    math, general, code = (found[family, "lds"] for family in ("math", "general", "code"))
    assert (math.ahead, math.low, math.high) == (0.1, -0.05, 0.2)
    assert (general.ahead, general.low, general.high) == (-0.01, None, None)
    assert code.ahead is None


def test_an_evaluation_without_exhaustive_ablation_is_refused():
    with pytest.raises(DataError, match="needs the fitted estimator, exhaustive ablation and a rival"):
        list(cells("m", rows({"math": {OURS: 0.7, "ifr": 0.5}}), APART))
