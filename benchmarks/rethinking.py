"""How much faster is thinking again with many regions hidden in one batch than one region after the other?

Both measure the total effect of every region on the same answers: one by one a picture is filled, the model writes again, and
the first answer is read in three passes. Seconds are of the CPU, so that nothing depends on what else runs.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from jaxtyping import Float
from torch import Tensor

from eyeline import load
from eyeline.ablation import ablate, fill_pixels
from eyeline.errors import DataError
from eyeline.evaluation.command_options import DATA, MODEL, TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.examples import Example, read_examples
from eyeline.generation import write
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.rethinking import LONGER, rethink
from eyeline.rewriting import parse
from eyeline.training.collect import Answered, answer, regions_of


@dataclass(frozen=True, slots=True)
class Row:
    """One trace, or the medians of all."""

    id: str
    tokens: int
    regions: int
    one_by_one_s: float
    together_s: float
    times_faster: float
    worst_difference: (
        float  # between the totals of both, nats; those with a thinking of other length than allowed left out
    )


def one_by_one(model: Model, own: Answered, regions: Regions) -> Float[Tensor, " region"]:
    """The total effect of every region, each by itself; NaN where the new thinking does not end in time."""
    opened = model.prompt_opens_thinking(own.inputs["input_ids"])
    first = parse(model, own.ids.tolist(), opened=opened)
    answer_ids = torch.tensor(first.answer_ids)
    most = LONGER * len(own.ids)

    def log_prob(inputs: dict[str, Tensor], thinking: tuple[int, ...]) -> float:
        ids = torch.cat([torch.tensor(thinking), answer_ids]).to(model.device)
        nothing = torch.zeros(0, len(regions.of_patch), dtype=torch.bool)
        return float(ablate(model, inputs, ids, nothing).log_probs[len(thinking) :].sum())

    whole = log_prob(own.inputs, first.thinking_ids)
    totals = []
    for region in range(regions.count):
        hidden = fill_pixels(model, own.inputs, regions.of_patch == region)
        (written,) = write(model, hidden, most)
        new = parse(model, written.ids, opened=opened)
        arms = [(hidden, first.thinking_ids), (own.inputs, new.thinking_ids), (hidden, new.thinking_ids)]
        *_, both = (log_prob(*arm) for arm in arms)
        in_time = new.channel == "answer" and len(new.thinking_ids) <= LONGER * len(first.thinking_ids)
        totals.append(whole - both if in_time else float("nan"))
    return torch.tensor(totals)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def measure(model: Model, examples: Iterable[Example], least: int, most: int) -> Iterator[Row]:
    """A row for every example whose trace is of `least` to `most` tokens and has an answer."""
    for example in examples:
        own = answer(model, example, most + 1, 1)
        if not least <= len(own.ids) <= most or not own.answer:
            continue
        regions = regions_of(model, own.pictures, own.inputs)
        single, slow = seconds(lambda own=own, regions=regions: one_by_one(model, own, regions))
        sets = torch.eye(regions.count, dtype=torch.bool)
        together, found = seconds(
            lambda own=own, labels=regions.of_patch, sets=sets: rethink(
                model, own.inputs, own.ids.tolist(), labels, sets
            )
        )
        difference = (found.total + found.nulls[:, 2].mean() - slow)[slow.isfinite()].abs()
        yield Row(
            example.id, len(own.ids), regions.count, single, together, single / together, float(difference.max())
        )  # fmt: skip


@click.command()
@MODEL
@DATA
@click.option("--least", default=150, show_default=True, help="Tokens of a trace, at least.")
@click.option("--most", default=1000, show_default=True, help="Tokens of a trace, at most.")
@TABLE
def main(model_id: str, data: Path, least: int, most: int, out: Path) -> None:
    """Time thinking again, all regions in one batch and one by one."""
    with writing(out, figure=False):
        rows = []
        for row in measure(load(model_id), read_examples(data), least, most):
            rows.append(row)
            click.echo(f"{row.id}: {row.tokens} tokens, {row.times_faster:.1f} times faster", err=True)
        if not rows:
            raise DataError(f"No trace of {least} to {most} tokens with an answer; give other --data.")
        columns = [list(column) for column in zip(*map(_values, rows), strict=True)]
        medians = [statistics.median(column) for column in columns]
        rows.append(Row("median", *map(round, medians[:2]), *medians[2:]))
        write_csv(Row, rows, out, ".3f")


def _values(row: Row) -> tuple[Any, ...]:
    return (
        row.tokens, row.regions, row.one_by_one_s, row.together_s, row.times_faster, row.worst_difference,
    )  # fmt: skip


if __name__ == "__main__":
    main()
