"""How far the answers to a set of questions rest on their images, to leave out those that can be had without looking.

Said of an answer is what the whole image does to it from the start: with the image hidden before the model thinks, how likely the
answer means something else, and how far its log-prob falls. Both are predicted without a pass through the model (through.py), and
measured on demand, by letting it think again (rethinking.py). What is measured counts: of the embedded model the predicted fall
does not tell its answers apart (docs/results.md).
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from eyeline import metrics
from eyeline.ablation import Method
from eyeline.errors import DataError, EyelineError
from eyeline.estimator import Estimator
from eyeline.estimator_files import digest as digest_of
from eyeline.evaluation.answers import means_the_same
from eyeline.events import SpanAttribution
from eyeline.examples import Example, digest, fields_of
from eyeline.files import cannot_write, read_lines, write_files
from eyeline.fills import FILLS
from eyeline.images import open_images
from eyeline.model import Model
from eyeline.rethinking import rethink
from eyeline.stream import stream
from eyeline.training.collect import open_run

SCORES, KEPT = "reliance.jsonl", "examples.jsonl"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a folder of scores was made with; it is only ever continued with the same."""

    regions: str = "native"
    max_new_tokens: int = 512
    estimator: str = ""  # its digest


@dataclass(frozen=True, slots=True)
class Scored:
    """What is said of one example's answer with the whole image hidden from the start; None where nothing is."""

    id: str
    digest: str  # of the example
    answer: str  # of the model
    change: float | None = None  # predicted chance that the answer means something else
    reliance: float | None = None  # predicted fall of its log-prob, nats
    trace: float | None = (
        None  # predicted falls of all spans, each with the text before it as it is, added up, nats
    )
    measured_change: bool | None = None  # whether it does
    measured: float | None = None  # its fall, nats
    problem: str = ""  # why nothing is said

    @property
    def rests(self) -> float | None:
        """By what it is kept or not: the fall that was measured, or else the predicted one."""
        return self.reliance if self.measured is None else self.measured


def filter_examples(
    model: Model, estimator: Estimator, examples: Iterable[Example], out: Path, settings: Settings, least: float,
    measure: int = 0,
) -> Iterator[Scored]:  # fmt: skip
    """Yields each example's score, and writes those that rest on their image with `least` nats and more as a data folder.

    `out` gets SCORES, a line an example as it is done, and KEPT, when all are; with another `least` nothing is asked again. The
    first `measure` examples are measured too, and what is measured counts. An example of which nothing can be said is not kept.
    Raises `DataError` for a folder of something else, for an id that comes twice or was scored of another question, and for a
    full disk.
    """
    open_run(
        model, out, asdict(replace(settings, estimator=digest_of(estimator))), "folder of filtered examples"
    )
    known = read_scores(out)
    seen: set[str] = set()
    part = out / f"{KEPT}.part"
    try:
        with part.open("w", encoding="utf-8") as kept, (out / SCORES).open("a", encoding="utf-8") as scores:
            for number, example in enumerate(examples):
                if example.id in seen or Path(example.id).name != example.id:
                    raise DataError(
                        f"The example id {example.id!r} comes twice or cannot be a file's name; give each a plain id of its own."
                    )
                seen.add(example.id)
                found = known.get(example.id)
                if found is not None and found.digest != digest(example):
                    raise DataError(
                        f"{out / SCORES} holds a score of another image or question than the example {example.id!r} has here; "
                        "choose another --out."
                    )
                wanted = number < measure
                if found is None or (wanted and found.measured is None and not found.problem):
                    found = score(model, estimator, example, settings, measured=wanted)
                    scores.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")
                    scores.flush()
                if found.rests is not None and found.rests >= least:
                    fields = fields_of(example, _names(example, out))
                    kept.write(json.dumps({**fields, "reliance": found.rests}, ensure_ascii=False) + "\n")
                yield found
        part.replace(out / KEPT)
    except OSError as error:
        raise cannot_write(out, error) from error


def score(
    model: Model, estimator: Estimator, example: Example, settings: Settings, *, measured: bool
) -> Scored:
    """Asks the model greedily, and says how far its answer rests on the image."""
    found = Scored(example.id, digest(example), "")
    try:
        pictures = open_images(list(example.images))
        with stream(
            model, pictures, example.prompt, estimator=estimator, regions=settings.regions,
            max_new_tokens=settings.max_new_tokens, temperature=0,
        ) as events:  # fmt: skip
            told = list(events)
            found = replace(found, answer=getattr(told[-1], "answer", ""))
            whole = [event.whole_image or 0.0 for event in told if isinstance(event, SpanAttribution)]
            labels = torch.tensor([label for grid in events.grids for row in grid for label in row])
            count = int(labels.max()) + 1
            rests = events.rests_on([range(count)])
        found = replace(found, change=rests.whole, reliance=rests.total[0], trace=sum(whole))
        if not measured:
            return found
        way: Method = estimator.hiding if estimator.hiding in FILLS else "pixels"  # pyright: ignore
        again = rethink(
            model, dict(events.inputs), events.ids, labels.to(model.device), torch.ones(1, count, dtype=torch.bool),
            method=way, generation=events.generation, same=means_the_same(example),
        )  # fmt: skip
        return replace(found, measured_change=bool(again.changes[0]), measured=float(again.total[0]))
    except EyelineError as error:
        return replace(found, problem=str(error))


def agreement(scored: Sequence[Scored]) -> float | None:
    """Spearman's correlation of predicted and measured falls; None under three."""
    pairs = [
        (each.reliance, each.measured)
        for each in scored
        if each.reliance is not None and each.measured is not None
    ]
    if len(pairs) < 3:
        return None
    predicted, measured = torch.tensor(pairs, dtype=torch.float64).T
    return float(metrics.spearman(predicted[None], measured[None])[0])


def read_scores(out: Path) -> dict[str, Scored]:
    """The scores of a folder so far; of two of one example the last, none of a line that was cut short. Raises `DataError`."""
    path = out / SCORES
    if not path.exists():
        return {}
    *lines, rest = read_lines(path)
    if rest:  # the writer was killed in the middle
        write_files({path: b"".join(line + b"\n" for line in lines)})
    found = {}
    for number, line in enumerate(lines, start=1):
        try:
            one = Scored(**json.loads(line))
            found[one.id] = one
        except (ValueError, TypeError) as error:
            raise DataError(
                f"Line {number} of {path} is no score ({error}); choose another --out."
            ) from error
    return found


def _names(example: Example, out: Path) -> list[str]:
    """Where a kept example's images lie, from its folder: where they are, or written there."""
    names = []
    for number, image in enumerate(example.images):
        if isinstance(image, Image.Image):
            names.append(f"images/{example.id}{f'-{number}' if number else ''}.png")
            (out / "images").mkdir(exist_ok=True)
            image.save(out / names[-1])
        else:
            names.append(Path(os.path.relpath(image, out)).as_posix())
    return names
