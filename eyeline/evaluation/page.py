"""An evaluation's table for people: one HTML file with the methods side by side, and faithfulness against cost as a figure."""

import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment

from eyeline.ablation import Method
from eyeline.errors import EyelineError
from eyeline.evaluation.evaluate import Chosen, read_evaluated
from eyeline.evaluation.table import Row, table, write_table
from eyeline.model import Model
from eyeline.runs import write_files

# Columns: metric, at, heading, whether high is good (None: neither), decimals
COLUMNS = (
    ("lds", "0.5", "LDS", True, 2),
    ("r2_span", "0.5", "R2 of a span", True, 2),
    ("agreement", "", "agreement with single ablation", True, 2),
    ("top_drop", "1", "top-1 drop, nats", True, 2),
    ("top_drop", "3", "top-3 drop, nats", True, 2),
    ("top_drop", "5", "top-5 drop, nats", True, 2),
    ("deletion", "", "deletion, nats", True, 2),
    ("insertion", "", "insertion, nats", False, 2),
    ("pointing", "", "pointing", True, 2),
    ("ms_per_token", "", "time per token, ms", False, 2),
    ("forward_passes", "", "forward passes", False, 1),
    ("backward_passes", "", "backward passes", False, 1),
    ("extra_memory_mib", "", "extra memory, MiB", False, 0),
)
WAYS: dict[Method, str] = {
    "pixels": "filling their pixels",
    "blur": "blurring their pixels",
    "inpaint": "filling their pixels with what surrounds them",
    "tokens": "filling their visual tokens",
    "attention": "attention knockout",
}


def write_results(model: Model, chosen: Chosen, out: Path) -> None:
    """Writes `table.csv` and `page.html` from what an evaluation's run holds."""
    images = read_evaluated(out)
    estimators = {name: each.to(torch.device("cpu")) for name, each in chosen.estimators.items()}
    rows = table(images, estimators)
    write_table(rows, out / "table.csv")
    about = {
        "model": model.name, "images": len(images), "spans": sum(len(one.spans) for one in images),
        "hiding": WAYS[chosen.hide],
    }  # fmt: skip
    write_page(rows, about, out / "page.html")


def write_page(rows: Sequence[Row], about: Mapping[str, Any], path: Path) -> None:
    """Writes the page; an earlier one is replaced or kept whole. Raises `EyelineError` where matplotlib is missing."""
    means = {(row.method, row.metric, row.at): row for row in rows if row.family == "mean"}
    methods = sorted({method for method, *_ in means}, key=lambda method: -means[method, "lds", "0.5"].value)
    columns = [column for column in COLUMNS if any((method, *column[:2]) in means for method in methods)]
    best = {}
    for metric, at, _, high, _ in columns:
        values = [means[method, metric, at].value for method in methods if (method, metric, at) in means]
        best[metric, at] = max(values) if high else min(values)
    families = sorted({row.family for row in rows if row.metric == "lds"} - {"mean"})
    lds = {(row.method, row.family): row for row in rows if (row.metric, row.at) == ("lds", "0.5")}
    template = Environment(autoescape=True).from_string(
        files("eyeline").joinpath("evaluation", "page.html").read_text(encoding="utf-8")
    )
    page = template.render(
        about=about, methods=methods, columns=columns, means=means, best=best, families=families, lds=lds,
        figure=faithfulness_against_cost(means, methods), pairs=[row for row in rows if row.family == "all"],
        left_out=[row for row in rows if row.metric == "spans_left_out" and row.at == "0.5"],
    )  # fmt: skip
    write_files({path: page.encode()})


def faithfulness_against_cost(means: Mapping[tuple[str, str, str], Row], methods: Sequence[str]) -> str:
    """LDS at rate 0.5 with its interval against milliseconds a token, as SVG (figure 1a of arXiv 2604.16587)."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EyelineError(
            "The page of an evaluation needs matplotlib: pip install 'eyeline[evaluate]'."
        ) from error
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    by_cost = sorted(methods, key=lambda method: means[method, "ms_per_token", ""].value)
    for number, method in enumerate(by_cost):
        score, cost = means[method, "lds", "0.5"], means[method, "ms_per_token", ""]
        ours = method.startswith("eyeline")
        assert score.low is not None
        assert score.high is not None
        error = [[score.value - score.low], [score.high - score.value]]
        axes.errorbar(
            cost.value, score.value, yerr=error, fmt="o", color="#b3402a" if ours else "#3b5b7a", capsize=2
        )
        left = number % 2  # in turn, so that neighbours do not write over each other
        axes.annotate(
            method, (cost.value, score.value), xytext=(-6, -8) if left else (6, 4), ha="right" if left else "left",
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="milliseconds a token", ylabel="LDS")
    axes.margins(x=0.15, y=0.1)
    axes.grid(alpha=0.3)
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()[svg.getvalue().index("<svg") :]
