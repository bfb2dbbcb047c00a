"""What reading earlier text costs: the decoding thread's CPU time with and without it, and whether attribution still keeps pace.

Streams with and without `sources` are run in turn; the decoding thread reads its own clock at every token, so that what the
worker does beside it does not count. Nothing else may run meanwhile.
"""

import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch

from eyeline import Model, load
from eyeline.evaluation.command_options import DATA, MODEL, TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.events import SpanAttribution
from eyeline.examples import Example, read_examples

TOKENS = 320  # of a trace, the end token not allowed before


@dataclass(frozen=True, slots=True)
class Row:
    """One ratio or share: its median over pairs of runs, and quartiles; or its value."""

    measure: str
    value: float
    low: float | None
    high: float | None
    count: int


class Clock:
    """A logits processor that changes nothing and notes the decoding thread's CPU time and the wall's at each token."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.wall: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seconds.append(time.thread_time())
        self.wall.append(time.perf_counter())
        return scores

    def elapsed(self) -> tuple[float, float]:
        """Seconds of the decoding thread and of the wall, from the first token to the last."""
        return self.seconds[-1] - self.seconds[0], self.wall[-1] - self.wall[0]


@dataclass(frozen=True, slots=True)
class Run:
    """One stream."""

    decoding_s: float  # CPU time of the decoding thread from its first token to its last
    wall_s: float
    between_s: float  # of the wall, from the first token to the last
    spans: int
    timely: int  # spans whose attribution was there before the next one's last token was


def run(model: Model, example: Example, sources: bool, **more: Any) -> Run:
    """`more` are options of `stream` in the place of ours."""
    clock, began, arrived = Clock(), time.perf_counter(), []
    own = more or {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    options = {"temperature": 0, "logits_processor": [clock], **own}
    for event in model.stream(example.image, example.prompt, sources=sources, **options):
        if isinstance(event, SpanAttribution):
            arrived.append((event, time.perf_counter()))
    wall = time.perf_counter() - began
    timely = sum(here < there - following.latency_s for (_, here), (following, there) in pairwise(arrived))
    decoding, between = clock.elapsed()
    return Run(decoding, wall, between, max(0, len(arrived) - 1), timely)


def measure(model: Model, examples: list[Example], rounds: int) -> list[Row]:
    for sources in (True, False):
        run(model, examples[0], sources)
    pairs = []
    for number in range(rounds):
        example, order = examples[number % len(examples)], (True, False) if number % 2 else (False, True)
        both = {sources: run(model, example, sources) for sources in order}
        pairs.append((both[True], both[False]))
    rows = []
    for name, ratios in (
        (
            "decoding thread's CPU time with sources over without",
            [on.decoding_s / off.decoding_s for on, off in pairs],
        ),
        ("wall time with sources over without", [on.wall_s / off.wall_s for on, off in pairs]),
    ):
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(Row(name, middle, low, high, rounds))
    for name, which in (("with", 0), ("without", 1)):
        spans = sum(pair[which].spans for pair in pairs)
        share = sum(pair[which].timely for pair in pairs) / max(1, spans)
        rows.append(Row(f"attributed before the next span ends, {name} sources", share, None, None, spans))
    return rows


@click.command()
@MODEL
@DATA
@click.option(
    "--rounds", type=click.IntRange(2), default=15, show_default=True, help="Number of pairs of runs."
)
@TABLE
def main(model_id: str, data: Path, rounds: int, out: Path) -> None:
    """Measure what reading earlier text costs the decoding thread."""
    with writing(out, figure=False):
        write_csv(Row, measure(load(model_id), list(read_examples(data)), rounds), out)


if __name__ == "__main__":
    main()
