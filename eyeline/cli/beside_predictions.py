"""What was measured of a span beside what was predicted: a table for 80 columns."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from eyeline.blind import is_measured
from eyeline.cli.side_by_side import nats
from eyeline.events import Start
from eyeline.report import ABOUT, name_regions


def show(console: Console, start: Start, text: str, events: Iterable[dict[str, Any]]) -> None:
    """The events of `span_check.verify` about a span's text: a row a region, the whole image last, and how the ranks agree."""
    told: dict[str, list[dict[str, Any]]] = {}
    for each in events:
        told.setdefault(each["event"], []).append(each)
    (baseline,), (whole,), (done,) = told["baseline"], told["together"], told["done"]
    places = name_regions(start)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("region", justify="right", no_wrap=True)
    table.add_column("place")
    for name in ("predicted", "measured"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in told["region"]:
        predicted = _predicted(each["predicted"], start.unit)
        table.add_row(str(each["region"]), places[each["region"]], predicted, nats(each["actual"]))
    table.add_section()
    predicted = "" if whole["predicted"] is None else _predicted(whole["predicted"], start.unit)
    whole_image = "the whole image" + (", measured both times" if is_measured(start) else "")
    table.add_row("", whole_image, predicted, nats(whole["actual"]))
    console.print(" ".join(text.split()), style="bold", markup=False, highlight=False)
    console.print(table)
    agreement, count = done["rank_agreement"], done["done"]
    if agreement is not None:
        console.print(
            f"rank agreement {agreement:.2f}: of predicted and measured over {count} regions, 1 at best",
            highlight=False,
        )
    shares = "; predicted are shares of the attention" if start.unit == "attention" else ""
    console.print(
        f"falls of the span's log-probability ({baseline['log_prob']:.2f}) in nats, hidden by {baseline['method']}{shares}",
        style="dim",
        highlight=False,
    )


def _predicted(value: float, unit: Any) -> str:
    return f"{100 * value:.0f} %" if unit == "attention" else f"{ABOUT[unit]}{nats(value)}"
