"""A saved run thought again with regions hidden: the first trace and the new one, what differs, measured beside predicted.

The definition and the model's part are rethinking.py's; here stands what is asked of a run, and how it is told.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from eyeline.ablation import Method
from eyeline.errors import DataError, RegionError
from eyeline.events import Done
from eyeline.fills import FILLS
from eyeline.kept_trace import check_model, read_back
from eyeline.model import Model, Prompt
from eyeline.rethinking import NULLS, Rethinking, rethink
from eyeline.rewriting import Rewritten
from eyeline.runs import Run

Kind = Literal["same", "first", "again"]  # in both traces, in the first alone, in the new one alone
Piece = tuple[Kind, str]


@dataclass(frozen=True, eq=False)
class ThoughtAgain:
    """What hiding some sets of regions of a run did, each set from the start."""

    method: Method
    sets: tuple[tuple[int, ...], ...]
    found: Rethinking
    predicted: tuple[
        dict[str, float] | None, ...
    ]  # of each set: changes, total, direct; None where nothing is predicted

    def differences(self, number: int, sample: int = 0) -> list[Piece]:
        """Words of the first trace and of a set's new one, in order."""
        return differences(whole(self.found.first), whole(self.found.again[number][sample]))

    def as_json(self) -> dict[str, Any]:
        """Numbers in nats but for `changes`, which is a share of the samples."""
        found = self.found
        return {
            "thinking": found.first.thinking, "answer": found.first.answer, "log_prob": found.log_prob,
            "hiding": self.method, "samples": len(found.again[0]) if found.again else 0,
            "sets": [
                {
                    "regions": list(regions), "changes": float(found.changes[at]), "total": float(found.total[at]),
                    "direct": float(found.direct[at]), "through": float(found.through[at]),
                    "interaction": float(found.interaction[at]), "predicted": self.predicted[at],
                    "again": [
                        {
                            "thinking": new.thinking, "answer": new.answer, "closed": new.closed,
                            "differences": [list(piece) for piece in self.differences(at, sample)],
                        }
                        for sample, new in enumerate(found.again[at])
                    ],
                }
                for at, regions in enumerate(self.sets)
            ],
            "nulls": [
                {"name": name, "changes": changes, "direct": falls[0], "through": falls[1], "total": falls[2]}
                for name, changes, falls in zip(
                    NULLS, found.null_changes.tolist(), found.nulls.tolist(), strict=True
                )
            ],
        }  # fmt: skip


def think_again(
    model: Model, run: Run, sets: Sequence[Sequence[int]] | None = None, *, samples: int | None = None, seed: int = 0,
    method: Method | None = None, prompt: Prompt | None = None, hidden: Sequence[int] = (),
) -> ThoughtAgain:  # fmt: skip
    """Hides sets of a saved run's regions from the start, and lets its model think again.

    `sets`: by default each region by itself and then all of them. `method`: by default the one that the run's numbers mean, or
    filled pixels. `prompt`: what was asked, where that is more than one turn. `hidden`: regions that the run was asked without,
    and that stay hidden. Raises `DataError` for a run of another model, without its token ids or an answer, or
    whose ids say another text than its events, and for `samples` of a greedy one; `RegionError` for a region that is none;
    `PromptError` for a run without images.
    """
    start = run.start
    check_model(model, run, "think again")
    kept = read_back(model, run, prompt)
    labels = torch.tensor([label for grid in start.regions for row in grid for label in row])
    count = int(labels.max()) + 1 if len(labels) else 0
    wanted = [*([region] for region in range(count)), range(count)] if sets is None else sets
    chosen = tuple(tuple(sorted({*regions})) for regions in wanted)
    for regions in chosen:
        if not regions or not all(0 <= region < count for region in regions):
            raise RegionError(
                f"The run has {count} regions; expected some of 0 to {count - 1} to hide, not {list(regions)}."
            )
    way: Method = method or (start.hiding if start.hiding in FILLS else "pixels")  # pyright: ignore
    rows: Bool[Tensor, "set region"] = torch.zeros(len(chosen), count, dtype=torch.bool)
    for row, regions in zip(rows, chosen, strict=True):
        row[list(regions)] = True
    found = rethink(
        model,
        kept.inputs,
        kept.ids,
        labels,
        rows,
        method=way,
        generation=kept.generation,
        samples=samples,
        seed=seed,
        already=torch.isin(labels, torch.tensor(list(hidden), dtype=labels.dtype)),
    )
    return ThoughtAgain(way, chosen, found, tuple(predicted(run, regions) for regions in chosen))


def predicted(run: Run, regions: Sequence[int]) -> dict[str, float] | None:
    """What is predicted of hiding some regions from the start; of the whole image the chance alone, and None where nothing is."""
    done = next((event for event in run.events if isinstance(event, Done)), None)
    if done is None or (rests_on := done.rests_on) is None:
        return None
    at = regions[0]
    if len(regions) > 1:
        if len(regions) == len(rests_on.changes):
            return {"changes": float(rests_on.whole)}
        try:
            rests_on, at = run.rests_on([regions]), 0
        except DataError:  # its numbers were not kept
            return None
    return {name: float(getattr(rests_on, name)[at]) for name in ("changes", "total", "direct")}


def whole(trace: Rewritten) -> str:
    """Thinking and answer as one text to compare."""
    return f"{trace.thinking.strip()}\n\n{trace.answer}" if trace.thinking.strip() else trace.answer


def differences(first: str, again: str) -> list[Piece]:
    """Both texts, word by word: stretches in both, and in one of them; those of a kind, joined, are a text."""
    one, two = (re.findall(r"\s*\S+|\s+$", text) for text in (first, again))
    pieces: list[Piece] = []
    for _, start, end, begin, stop in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        old, new = "".join(one[start:end]), "".join(two[begin:stop])
        if old == new:
            pieces.append(("same", old))
            continue
        if old:
            pieces.append(("first", old))
        if new:
            pieces.append(("again", new))
    return pieces
