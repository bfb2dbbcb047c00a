"""The truth of what answers rest on: of every scene, what hiding each region from the start does to the answer.

Beside an evaluation, in a folder of its own and with the evaluation's regions; each scene is one file, written when it is
whole, so that a run that was stopped goes on where it was. The definition is rethinking.py's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.errors import DataError
from eyeline.evaluation.answers import is_right
from eyeline.evaluation.evaluate import Settings
from eyeline.examples import Example
from eyeline.generation import check_options
from eyeline.model import Model
from eyeline.regions import load_source
from eyeline.rethinking import rethink
from eyeline.rewriting import parse
from eyeline.training.collect import answer, each_once, open_run, read_saved, regions_of, save_example

FOLDER = "totals"  # in that of an evaluation
TENSORS = ("labels", "changes", "total", "direct", "through", "nulls", "null_changes")
WHOLE = ("whole_changes", "whole_total", "whole_direct", "whole_through")
PLAIN = (
    "id",
    "family",
    "answer",
    "right",
    "tokens",
    "thinking_tokens",
    "log_prob",
    "again",
    "closed",
    *WHOLE,
)


@dataclass(frozen=True, slots=True)
class Totals:
    """One scene's answer, and what hiding regions from the start did to it; falls in nats, less the null rows' mean."""

    id: str
    family: str
    answer: str
    right: bool  # the answer is the scene's
    tokens: int  # of the trace
    thinking_tokens: int  # of them
    log_prob: float  # of the answer
    labels: Int[Tensor, "row col"]
    changes: Float[Tensor, " region"]  # 1 where the new answer means something else
    total: Float[Tensor, " region"]
    direct: Float[Tensor, " region"]
    through: Float[Tensor, " region"]
    whole_changes: float  # the same with everything hidden
    whole_total: float
    whole_direct: float
    whole_through: float
    nulls: Float[Tensor, "null 3"]  # direct, through and total of rethinking.NULLS
    null_changes: Float[Tensor, " null"]
    again: tuple[str, ...]  # the new answer without each region, then without the whole image
    closed: tuple[bool, ...]  # whether its thinking had to be closed


def total_of(model: Model, example: Example, settings: Settings) -> Totals | None:
    """Thinks again without each region and without the whole image. None where the model gives no answer."""
    own = answer(model, example, settings.max_new_tokens, settings.max_spans)
    opened = model.prompt_opens_thinking(own.inputs["input_ids"])
    if not own.answer or parse(model, own.ids.tolist(), opened=opened).channel == "thinking":
        return None
    labels = regions_of(model, own.picture, own.inputs, settings.regions, settings.seed).labels[0]
    count = int(labels.max()) + 1
    sets = torch.cat([torch.eye(count, dtype=torch.bool), torch.ones(1, count, dtype=torch.bool)])

    def same(first: str, other: str) -> bool:
        return is_right(replace(example, answer=first), other)

    found = rethink(
        model, own.inputs, own.ids.tolist(), labels.flatten(), sets, method=settings.hiding, same=same
    )
    each = {
        "changes": found.changes,
        "total": found.total,
        "direct": found.direct,
        "through": found.through,
    }
    whole: dict[str, Any] = {f"whole_{name}": float(values[-1]) for name, values in each.items()}
    return Totals(
        id=example.id, family=example.family, answer=own.answer, right=is_right(example, own.answer),
        tokens=len(own.ids), thinking_tokens=len(found.first.thinking_ids), log_prob=found.log_prob,
        labels=labels.cpu(), **{name: values[:-1] for name, values in each.items()}, **whole,
        nulls=found.nulls, null_changes=found.null_changes,
        again=tuple(new.answer for (new,) in found.again), closed=tuple(new.closed for (new,) in found.again),
    )  # fmt: skip


def measure_totals(model: Model, examples: Iterable[Example], out: Path, settings: Settings) -> Iterator[str]:
    """Measures every scene that the evaluation's folder does not hold yet, and yields the id of each as it is there.

    Scenes without an answer are kept as such. Raises `DataError` where the folder holds totals of another model, version or
    settings, for a scene that cannot be measured, and for a model that samples by itself.
    """
    check_options(model, {})
    if model.hf.generation_config.do_sample:
        raise DataError(
            "Totals are of greedy answers, and the model's generation_config samples: set its do_sample to false."
        )
    load_source(settings.regions, model.device)
    relevant = ("hiding", "regions", "max_new_tokens", "seed")
    open_run(model, out / FOLDER, {name: getattr(settings, name) for name in relevant}, "folder of totals")
    yield from each_once(
        examples, out / FOLDER, lambda example: (example, total_of(model, example, settings)), _save, "thought again",
    )  # fmt: skip


def _save(made: tuple[Example, Totals | None], path: Path, digest: str) -> None:
    example, one = made
    if one is None:
        return save_example(
            {}, {"id": example.id, "family": example.family, "answered": False, "digest": digest}, path
        )
    tensors = {name: getattr(one, name) for name in TENSORS}
    rest = {name: getattr(one, name) for name in PLAIN}
    save_example(tensors, {**rest, "answered": True, "digest": digest}, path)


def read_totals(run: Path) -> list[Totals]:
    """Those of an evaluation's scenes that had an answer, by id. Raises `DataError` for a file that is none."""
    return [one for one in read_saved(run / FOLDER, _totals, "thought-again") if one is not None]


def _totals(rest: dict[str, Any], tensors: dict[str, Tensor]) -> Totals | None:
    if not rest["answered"]:
        return None
    plain = {name: rest[name] for name in PLAIN}
    return Totals(**{**plain, "again": tuple(rest["again"]), "closed": tuple(rest["closed"]), **tensors})
