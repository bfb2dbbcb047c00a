"""How far the answers to a set of questions rest on their images, to leave out those that can be had without looking.

Said of an answer is what the whole image does to it from the start: how far its log-prob falls with the image hidden before the
model thinks. That is predicted by how far it falls where the answer is guessed, without image and thinking, and measured on
demand, by letting the model think again (both rethinking.py). What is measured counts (docs/results.md has how well they agree).
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from eyeline import metrics
from eyeline.errors import DataError, EyelineError
from eyeline.evaluation.answers import means_the_same
from eyeline.examples import Example, digest, fields_of
from eyeline.files import cannot_write, read_lines, write_files
from eyeline.generation import write
from eyeline.images import open_images
from eyeline.model import Model
from eyeline.regions import regions_for
from eyeline.rethinking import guessed_fall, rethink
from eyeline.training.collect import open_run

SCORES, KEPT = "reliance.jsonl", "examples.jsonl"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a folder of scores was made with; it is only ever continued with the same."""

    max_new_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Scored:
    """What is said of one example's answer with the whole image hidden from the start; None where nothing is."""

    id: str
    digest: str  # of the example
    answer: str  # of the model
    reliance: float | None = None  # fall of its log-prob where it is guessed, nats
    measured_change: bool | None = None  # whether the answer means something else after thinking again
    measured: float | None = None  # fall of its log-prob then, nats
    problem: str = ""  # why nothing is said

    @property
    def rests(self) -> float | None:
        """By what it is kept or not: the fall that was measured, or else the predicted one."""
        return self.reliance if self.measured is None else self.measured


def filter_examples(
    model: Model, examples: Iterable[Example], out: Path, settings: Settings, least: float, measure: int = 0
) -> Iterator[Scored]:  # fmt: skip
    """Yields each example's score, and writes those that rest on their image with `least` nats and more as a data folder.

    `out` gets SCORES, a line an example as it is done, and KEPT, when all are; with another `least` nothing is asked again. The
    first `measure` examples are measured too, and what is measured counts. An example of which nothing can be said is not kept.
    Raises `DataError` for a folder of something else, for an id that comes twice or was scored of another question, and for a
    full disk.
    """
    open_run(model, out, asdict(settings), "folder of filtered examples")
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
                    found = score(model, example, settings, measured=wanted)
                    scores.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")
                    scores.flush()
                if found.rests is not None and found.rests >= least:
                    fields = fields_of(example, _names(example, out))
                    kept.write(json.dumps({**fields, "reliance": found.rests}, ensure_ascii=False) + "\n")
                yield found
        part.replace(out / KEPT)
    except OSError as error:
        raise cannot_write(out, error) from error


def score(model: Model, example: Example, settings: Settings, *, measured: bool) -> Scored:
    """Asks the model greedily, and says how far its answer rests on the image."""
    found = Scored(example.id, digest(example), "")
    greedy = {"do_sample": False}
    try:
        pictures = open_images(list(example.images))
        inputs = model.inputs(pictures, example.prompt)
        (written,) = write(model, inputs, settings.max_new_tokens)
        found = replace(found, answer=written.answer)
        found = replace(found, reliance=guessed_fall(model, inputs, written.ids, generation=greedy))
        if not measured:
            return found
        grids = model.image_grids(inputs)
        squares = regions_for(pictures, grids, [torch.zeros(len(grid), 1) for grid in grids], "grid")
        again = rethink(
            model, inputs, written.ids, squares.of_patch.to(model.device),
            torch.ones(1, squares.count, dtype=torch.bool), generation=greedy, same=means_the_same(example),
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
