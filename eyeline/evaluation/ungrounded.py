"""Is the mark "not grounded" right? Held against measured falls, on traces of which many sentences are not.

The model's own traces (`own`), its traces of the counterfactual image held against this one, so that one reading is false
(`crossed`), and its traces of an image that is all one colour (`blank`). What grounded means, and how it is predicted, stands
in grounding.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from eyeline import load
from eyeline.ablation import ablate, fill_pixels
from eyeline.estimator import Estimator
from eyeline.evaluation.command_options import ESTIMATOR, MODEL, TABLE
from eyeline.evaluation.evaluate import one_estimator
from eyeline.evaluation.results import write_csv, writing
from eyeline.evaluation.sanity import in_pairs
from eyeline.evaluation.totals import check_estimator
from eyeline.events import SpanAttribution
from eyeline.examples import Example, read_examples
from eyeline.generation import write
from eyeline.grounding import TRUE
from eyeline.images import open_image
from eyeline.model import Inputs, Model
from eyeline.spans import Span
from eyeline.statements import states
from eyeline.stream import attribute
from eyeline.text_ablation import hide_text, of_spans

DRAWS = 2000  # of the bootstrap
KINDS = ("own", "crossed", "blank")


@dataclass(frozen=True, slots=True)
class Row:
    """A share, with its 95 % interval from resampling scenes; of no sentence it is nothing."""

    traces: str  # one of KINDS, or all
    family: str  # or all
    measure: str  # precision, recall, false alarms
    value: float | None
    low: float | None
    high: float | None
    sentences: int  # that state something
    ungrounded: int  # of these, as measured


@dataclass(frozen=True, slots=True)
class Judged:
    """The sentences of one trace that state something: measured and said."""

    scene: str
    family: str
    kind: str
    grounded: tuple[bool, ...]  # as measured
    marked: tuple[bool, ...]  # as not grounded


def measure(model: Model, inputs: Inputs, ids: Int[Tensor, " token"], spans: Sequence[Span]) -> list[float]:
    """Of each span the fall of its log-prob with the image and all earlier grounded spans hidden together, nats.

    The image is filled for the whole trace, and the spans are hidden from the span's own queries.
    """
    everything = torch.ones(sum(map(len, model.image_grids(inputs))), dtype=torch.bool)
    without_image = ablate(model, inputs, ids, everything[None]).falls[0]
    filled = fill_pixels(model, inputs, everything)
    found, grounded = [], []
    for number, span in enumerate(spans):
        total = float(without_image[span.start : span.end].sum())
        if grounded:
            subset = torch.tensor([[each in grounded for each in range(number)]])
            total += float(
                hide_text(model, filled, ids, span, of_spans(subset, spans[:number], span.start)).sum()
            )
        if total > TRUE:
            grounded.append(number)
        found.append(total)
    return found


def traces_of(
    model: Model, one: Example, other: Example, tokens: int
) -> Iterator[tuple[str, Image.Image, list[int], list[Span]]]:
    """The kind, the image that is shown, and a trace, for each of KINDS."""
    image, twin = open_image(one.images[0]), open_image(other.images[0])
    mean = tuple(np.asarray(image).reshape(-1, 3).mean(0).round().astype(int).tolist())
    nothing = Image.new("RGB", image.size, mean)
    for kind, shown, seen, prompt in (
        ("own", image, image, one.prompt), ("crossed", image, twin, other.prompt), ("blank", nothing, nothing, one.prompt),
    ):  # fmt: skip
        (written,) = write(model, model.inputs([seen], prompt), tokens)
        yield kind, shown, written.ids, written.spans


def judge(model: Model, estimator: Estimator, pair: tuple[Example, Example], tokens: int) -> Iterator[Judged]:
    one, other = pair
    for kind, image, ids, spans in traces_of(model, one, other, tokens):
        falls = measure(
            model, model.inputs([image], one.prompt), torch.tensor(ids, device=model.device), spans
        )
        with attribute(model, image, one.prompt, ids, estimator=estimator) as events:
            said = {event.index: event.grounded for event in events if isinstance(event, SpanAttribution)}
        stated = [
            (fall > TRUE, said.get(span.index) is False)
            for span, fall in zip(spans, falls, strict=True)
            if states(span.text, one.prompt)
        ]
        grounded, marked = zip(*stated, strict=True) if stated else ((), ())
        yield Judged(one.id, one.family, kind, grounded, marked)


def rows_of(judged: Sequence[Judged]) -> Iterator[Row]:
    families = sorted({each.family for each in judged})
    for kind in (*KINDS, "all"):
        for family in (*families, "all"):
            some = [each for each in judged if kind in (each.kind, "all") and family in (each.family, "all")]
            counts = np.array(
                [_counts(some, scene) for scene in sorted({each.scene for each in some})], float
            )
            if not len(counts):
                continue
            rng = np.random.default_rng(0)
            drawn = counts[rng.integers(len(counts), size=(DRAWS, len(counts)))].sum(1)
            right, marked, ungrounded, false, grounded = range(5)
            for name, top, bottom in (
                ("precision", right, marked), ("recall", right, ungrounded), ("false alarms", false, grounded),
            ):  # fmt: skip
                whole = counts.sum(0)
                value = low = high = None
                if whole[bottom]:
                    value = float(whole[top] / whole[bottom])
                    shares = drawn[:, top] / np.where(drawn[:, bottom] > 0, drawn[:, bottom], np.nan)
                    low, high = (float(end) for end in np.nanquantile(shares, (0.025, 0.975)))
                yield Row(
                    kind,
                    family,
                    name,
                    value,
                    low,
                    high,
                    int(whole[ungrounded] + whole[grounded]),
                    int(whole[ungrounded]),
                )


def _counts(judged: Sequence[Judged], scene: str) -> tuple[int, int, int, int, int]:
    """Of a scene's sentences: marked and not grounded, marked, not grounded, marked though grounded, grounded."""
    pairs = [
        pair
        for each in judged
        if each.scene == scene
        for pair in zip(each.grounded, each.marked, strict=True)
    ]
    marked = sum(mark for _, mark in pairs)
    false = sum(mark and grounded for grounded, mark in pairs)
    grounded = sum(grounded for grounded, _ in pairs)
    return marked - false, marked, len(pairs) - grounded, false, grounded


@click.command()
@MODEL
@ESTIMATOR
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Data folder with counterfactuals."
)
@click.option("--max-new-tokens", default=512, show_default=True)
@TABLE
def main(model_id: str, estimator: str | None, data: Path, max_new_tokens: int, out: Path) -> None:
    """Measure how often sentences that are marked as not grounded are not, and how many are marked."""
    with writing(out, figure=False):
        model = load(model_id)
        own, _ = one_estimator(model, estimator)
        check_estimator(own)
        pairs, judged = in_pairs(read_examples(data)), []
        for number, pair in enumerate(pairs, start=1):
            judged += judge(model, own, pair, max_new_tokens)
            click.echo(f"{number} of {len(pairs)}", err=True)
        write_csv(Row, list(rows_of(judged)), out)
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
