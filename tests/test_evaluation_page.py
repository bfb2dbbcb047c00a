"""The page of an evaluation: what its tables tell apart, and that they fit a screen."""

import re

import pytest

from eyeline.evaluation.page import COLUMNS, render
from eyeline.evaluation.results import in_figure
from eyeline.evaluation.table import Row

METHODS = ("eyeline (eyeline-mini), joint", "eyeline (eyeline-mini)", "raw-attention")
ABOUT = {"model": "mini", "images": 2, "spans": 22, "hiding": "filling their pixels"}


def page(pairs: list[Row]) -> str:
    means = {
        (method, metric, at): Row(method, metric, at, "mean", 11.26, 10.13, 12.27, 5)
        for method in METHODS
        for metric, at, *_ in COLUMNS
    }
    return render(
        pairs, [], means, METHODS, ABOUT, dict.fromkeys(("cost", "families", "effects"), "<svg></svg>")
    )


def test_rows_of_one_metric_say_what_they_are_at_and_over_how_many_of_what():
    ats = ("0.5", "0.25", "alone", "whole", "contributions")
    pairs = [Row(METHODS[0], "r2_nats", at, "all", 0.8, None, None, 704) for at in ats]
    pairs.append(Row(METHODS[0], "coverage", "alone", "all", 0.97, None, None, 2))
    pairs.append(Row(METHODS[0], "coverage_over_half_a_nat", "alone", "all", 0.67, None, None, 6))
    table = page(pairs).split("<h2>Single regions, all pairs</h2>")[1]
    rows = [
        re.findall(r"<td>(.*?)</td>", row)
        for row in re.findall(r"<tbody>(.*)</tbody>", table)[0].split("</tr>")[:-1]
    ]
    assert [(at, over) for _, at, _, over in rows] == [
        ("subsets at 0.5", "704 pairs"),
        ("subsets at 0.25", "704 pairs"),
        ("single regions", "704 pairs"),
        ("everything hidden", "704 pairs"),
        ("contributions", "704 pairs"),
        ("single regions", "2 images"),
        ("single regions", "6 pairs above 0.5 nats"),
    ]


@pytest.mark.browser
def test_the_tables_of_methods_fit_a_screen_of_1280_pixels(browser):
    shown = browser.new_page(viewport={"width": 1280, "height": 900})
    shown.set_content(page([]))
    cut = "all => all.map(each => [each.scrollWidth, each.clientWidth])"
    widths = shown.locator(".scroll").evaluate_all(cut)
    shown.close()
    assert len(widths) == 4
    assert all(whole <= seen for whole, seen in widths), widths


def test_a_name_in_a_figure_is_short_and_no_formula_and_keeps_the_end_that_tells_it_apart():
    assert in_figure("raw-attention") == "raw-attention"
    assert in_figure("a$b$\n 模") == r"a\$b\$ ?"
    assert len(in_figure("x" * 99)) == 32
    assert in_figure(METHODS[0]) == METHODS[0]
    long = [in_figure(f"eyeline (an-estimator-of-mine{row})") for row in ("", ", alone", ", joint")]
    assert len(set(long)) == 3
    assert long[1].endswith(", alone)")
