"""An evaluation for people: one HTML file with the methods side by side and figures, each also a PNG beside it."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment

from eyeline import metrics
from eyeline.ablation import Method
from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.evaluation.baselines import MEAN
from eyeline.evaluation.evaluate import ALONE_ROW, Chosen, Evaluated, read_evaluated
from eyeline.evaluation.results import (
    OURS,
    PLAIN,
    error_bars,
    in_figure,
    new_figure,
    svg,
    write_csv,
    write_png,
)
from eyeline.evaluation.table import Row, table
from eyeline.evaluation.versus import Difference, differences
from eyeline.files import write_files
from eyeline.model import Model
from eyeline.training.collect import ALONE

# Columns: metric, at, heading, whether high is good, decimals
COLUMNS = (
    ("lds", "0.5", "LDS", True, 2),
    ("r2_span", "0.5", "R2 of a span", True, 2),
    ("agreement", "", "agreement with single ablation", True, 2),
    ("top_drop", "1", "top-1 drop, nats", True, 2),
    ("top_drop", "3", "top-3 drop, nats", True, 2),
    ("top_drop", "5", "top-5 drop, nats", True, 2),
    ("deletion", "", "deletion, nats", True, 2),
    ("insertion", "", "insertion, nats", False, 2),
    ("contribution_correlation", "", "correlation with contributions", True, 2),
    ("empty_heat", "", "empty heat", False, 2),
    ("false_heat_nats", "", "false heat, nats", False, 3),
    ("pointing", "", "pointing", True, 2),
    ("ms_per_token", "", "time per token, ms", False, 2),
    ("forward_passes", "", "forward passes", False, 1),
    ("backward_passes", "", "backward passes", False, 1),
    ("extra_memory_mib", "", "extra memory, MiB", False, 0),
)
COSTS = ("ms_per_token", "forward_passes", "backward_passes", "extra_memory_mib")  # a table by itself
AT = {"alone": "single regions", "whole": "everything hidden"}  # and rates of random subsets
COUNTED = {"coverage": "images", "coverage_over_half_a_nat": "pairs above 0.5 nats"}  # others: pairs
WAYS: dict[Method, str] = {
    "pixels": "filling their pixels",
    "blur": "blurring their pixels",
    "inpaint": "filling their pixels with what surrounds them",
    "tokens": "filling their visual tokens",
    "attention": "attention knockout",
}


BAND_POINTS = 400  # of an interval's outline
LEAST_MS = 1e-3  # a token: costs below are drawn there
Means = Mapping[tuple[str, str, str], Row]  # by method, metric and what it is at


def write_results(model: Model, chosen: Chosen, out: Path) -> None:
    """Writes `table.csv`, `versus.csv`, `page.html` and its figures from what an evaluation's run holds.

    Versus is the first method, an estimator's heat where there is one.

    Raises `EyelineError` where matplotlib is missing.
    """
    images = read_evaluated(out)
    estimators = chosen.estimators
    rows = table(images, estimators)
    write_csv(Row, rows, out / "table.csv")
    apart = list(differences(images, next(iter(chosen.methods))))
    write_csv(Difference, apart, out / "versus.csv")
    means = {(row.method, row.metric, row.at): row for row in rows if row.family == "mean"}
    if not any(metric == "lds" and at == "0.5" for _, metric, at in means):
        raise DataError(
            f"{out / 'table.csv'} is written, but no page: no span depends on the image enough for a correlation. Check that the "
            "model sees its images, and evaluate more of them."
        )
    measured = {method for method, metric, _ in means if metric == "lds"}
    methods = better_readings(sorted(measured, key=lambda method: -means[method, "lds", "0.5"].value))
    rows = [row for row in rows if row.method in ("all", *methods)]
    sized = {name: each for name, each in estimators.items() if each.has_intervals}
    figures = {
        "cost": faithfulness_against_cost(means, methods),
        "families": by_family(rows, methods),
        **({"effects": predicted_against_actual(images, sized)} if sized else {}),
    }
    for name, figure in figures.items():
        write_png(figure, out / f"{name}.png")
    about = {
        "model": model.name, "images": len(images), "spans": sum(len(one.spans) for one in images),
        "hiding": WAYS[chosen.hiding],
    }  # fmt: skip
    page = render(rows, apart, means, methods, about, {name: svg(figure) for name, figure in figures.items()})
    write_files({out / "page.html": page.encode()})


def better_readings(methods: Sequence[str]) -> list[str]:
    """Of each rival with two readings, sum and mean over a region, the one that comes first; the others as they are."""
    kept: dict[str, str] = {}
    for method in methods:
        kept.setdefault(method.removesuffix(MEAN), method)
    return list(kept.values())


def render(
    rows: Sequence[Row],
    apart: Sequence[Difference],
    means: Means,
    methods: Sequence[str],
    about: Mapping[str, Any],
    figures: Mapping[str, str],
) -> str:
    """The page as HTML, the figures in it as SVG."""
    columns = [column for column in COLUMNS if any((method, *column[:2]) in means for method in methods)]
    best = {}
    for metric, at, _, high, _ in columns:
        values = [means[method, metric, at].value for method in methods if (method, metric, at) in means]
        best[metric, at] = max(values) if high else min(values)
    families = _families(rows)
    lds = {(row.method, row.family): row for row in rows if (row.metric, row.at) == ("lds", "0.5")}
    ahead = {(one.method, one.metric): one for one in apart if (one.at, one.family) == ("0.5", "mean")}
    template = Environment(autoescape=True).from_string(
        files("eyeline").joinpath("evaluation", "page.html").read_text(encoding="utf-8")
    )
    return template.render(
        about=about, methods=methods, means=means, best=best, families=families, lds=lds,
        faithful=[column for column in columns if column[0] not in COSTS],
        costs=[column for column in columns if column[0] in COSTS], at_words=_at_words, counted=COUNTED,
        figures=figures, ahead=ahead, pairs=[row for row in rows if row.family == "all"],
        left_out=[row for row in rows if row.metric == "spans_left_out"],
        largest=means.get(("all", "pointing_of_largest", "")),
    )  # fmt: skip


def _at_words(at: str) -> str:
    """Over what a number of all pairs goes."""
    return AT.get(at) or (f"subsets at {at}" if at.replace(".", "").isdigit() else at)


def _families(rows: Sequence[Row]) -> list[str]:
    return sorted({row.family for row in rows if row.metric == "lds"} - {"mean"})


def faithfulness_against_cost(means: Means, methods: Sequence[str]) -> Any:
    """LDS at rate 0.5 with its interval against milliseconds a token (figure 1a of arXiv 2604.16587)."""
    figure = new_figure(7.5, 4.2)
    axes = figure.add_subplot()
    axes.set(xscale="log", xlabel="milliseconds a token", ylabel="LDS", ylim=(-0.1, 1.0))
    room = min(0.062, 0.85 / len(methods))  # between names, which stand beside the axes in the order of LDS
    above = 0.25 * room * len(methods)  # its point, a name at most: crowded names reach as far below
    costs = {method: max(means[method, "ms_per_token", ""].value, LEAST_MS) for method in methods}
    axes.set_xlim(min(costs.values()) / 2, max(costs.values()) * 2)  # however alike they are
    beside = 1.0
    for method in sorted(methods, key=lambda method: -means[method, "lds", "0.5"].value):
        lds, cost = means[method, "lds", "0.5"], costs[method]
        axes.errorbar(cost, lds.value, yerr=_bar(lds), fmt="o", color=_colour(method), capsize=2)
        beside = min(beside - room, lds.value + above)
        axes.annotate(
            in_figure(method), (cost, lds.value), xytext=(1.04, beside), textcoords=("axes fraction", "data"),
            va="center", fontsize=8, color=_colour(method), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _colour(method), "linewidth": 0.4, "shrinkB": 4, "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def by_family(rows: Sequence[Row], methods: Sequence[str]) -> Any:
    """LDS and top-5 drop of every method in every family and in their mean, with intervals; methods by their LDS."""
    families = [*_families(rows), "mean"]
    names = [in_figure(method) for method in methods]
    shown = (("lds", "0.5", "LDS"), ("top_drop", "5", "top-5 drop, nats"))
    figure = new_figure(1.9 + 1.5 * len(families), 1.4 + 0.4 * len(methods))
    grid = figure.subplots(len(shown), len(families), sharex="row", sharey=True, squeeze=False)
    for line, (metric, at, label) in zip(grid, shown, strict=True):
        for axes, family in zip(line, families, strict=True):
            for row in rows:
                if (row.metric, row.at, row.family) == (metric, at, family):
                    axes.errorbar(
                        row.value, methods.index(row.method), xerr=_bar(row), fmt="o", markersize=3.5,
                        color=_colour(row.method), capsize=1.5,
                    )  # fmt: skip
            axes.set_title(in_figure(family) if metric == "lds" else "", fontsize=9)
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=8)
        line[0].set_yticks(range(len(methods)), names)
        line[0].set_ylim(len(methods) - 0.4, -0.6)
        line[len(families) // 2].set_xlabel(label, fontsize=9)
    return figure


def predicted_against_actual(images: Sequence[Evaluated], estimators: Mapping[str, Estimator]) -> Any:
    """What each region does to each span when hidden alone: measured, against estimated, with the estimator's intervals."""
    figure = new_figure(0.8 + 3.9 * len(estimators), 4.2)
    line = figure.subplots(1, len(estimators), sharex=True, sharey=True, squeeze=False)[0]
    actual = torch.cat([one.falls[:, one.rates == ALONE].flatten() for one in images])
    for axes, name in zip(line, estimators, strict=True):
        row = ALONE_ROW.format(name)
        effects = torch.cat([one.effects[row].flatten() for one in images]).sort()
        low, high = torch.cat([one.intervals[row].flatten(0, 1) for one in images])[effects.indices].T
        some = torch.linspace(0, len(low) - 1, BAND_POINTS).long()
        ends = effects.values[[0, -1]]
        axes.fill_between(effects.values[some], low[some], high[some], color=OURS, alpha=0.15, linewidth=0)
        axes.plot(
            effects.values,
            actual[effects.indices],
            ".",
            color=PLAIN,
            markersize=2,
            alpha=0.4,
            rasterized=True,
        )
        axes.plot(ends, ends, color=OURS, linewidth=1)
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_yscale("symlog", linthresh=0.1)
        r2 = metrics.r2_nats(effects.values, actual[effects.indices])
        axes.set_title(in_figure(name) if r2 is None else f"{in_figure(name)}: R2 {r2:.2f}", fontsize=9)
        axes.set_xlabel("estimated effect, nats")
        axes.grid(alpha=0.3)
    line[0].set_ylabel("measured effect, nats")
    return figure


def _bar(row: Row) -> list[list[float]]:
    return error_bars([(row.value, row.low, row.high)])


def _colour(method: str) -> str:
    return OURS if method.startswith("eyeline") else PLAIN
