"""A question about an image with its known answer: the unit of every data folder, and how answers are scored."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from eyeline.errors import DataError
from eyeline.files import decode_text, read_lines

COUNTERFACTUAL = "-counterfactual"  # ends the id of an example's counterpart with another answer
QUESTION = "What does this image show? Say what you see, step by step."  # where none is given
OWN = "own"  # family and source where none is named
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the image
Shown = Path | Image.Image


@dataclass(frozen=True, slots=True)
class Matching:
    """How answers are held against the right one: what a data set lays down (evaluation/answers.py)."""

    rule: str  # one of `answers.RULES`, or empty: a judge would be needed, and no answer is marked
    choices: tuple[str, ...] = ()  # what letters stand for, A first
    also: tuple[str, ...] = ()  # other answers that are right
    decimals: int | None = None  # that numbers are rounded to
    error: float = 0.0  # by which a number may be off


@dataclass(frozen=True, slots=True)
class Example:
    """One line of `examples.jsonl`.

    `evidence` holds, for each sentence of `trace`, the boxes it is the first to read; without a trace, those of the
    whole answer. Boxes are of the first image.
    """

    id: str
    image: Shown | tuple[Shown, ...]  # or several
    prompt: str
    answer: str
    family: str
    source: str  # the kind of scene, or the data set it comes from
    trace: tuple[str, ...] = ()  # sentences of the reference trace, where there is one
    evidence: tuple[tuple[Box, ...], ...] = ()
    prior: bool = False  # what the question leads to expect is not what the image shows
    matching: Matching | None = None  # None: code by what it means, anything else exactly

    @property
    def images(self) -> tuple[Shown, ...]:
        return self.image if isinstance(self.image, tuple) else (self.image,)

    @property
    def answer_evidence(self) -> tuple[Box, ...]:
        """Boxes that the whole answer rests on, where the data say so."""
        return self.evidence[0] if self.evidence and not self.trace else ()


# Of a line; the last is what `eyeline filter` adds.
FIELDS = (*(field.name for field in fields(Example)), "reliance")


def digest(example: Example) -> str:
    """SHA-256 of all that an example says and shows; of an image that cannot be read, without it.

    How answers are matched is not of it: nothing that is measured depends on it.
    """
    said = asdict(replace(example, image=(), matching=None)) | {"image": None}
    del said["matching"]
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for image in example.images:
        if isinstance(image, Image.Image):
            found.update(f"{image.mode} {image.size}".encode() + image.tobytes())
        elif image.is_file():
            found.update(image.read_bytes())
    return found.hexdigest()


def fields_of(example: Example, images: Sequence[str]) -> dict[str, Any]:
    """An example as a line of `examples.jsonl` holds it, with the names of its images."""
    fields = {
        "id": example.id, "image": images[0] if len(images) == 1 else list(images), "prompt": example.prompt,
        "answer": example.answer, "family": example.family, "source": example.source, "trace": example.trace,
        "evidence": example.evidence, "prior": example.prior,
    }  # fmt: skip
    return fields if example.matching is None else {**fields, "matching": asdict(example.matching)}


def write_examples(examples: Iterable[Example], folder: Path) -> int:
    """Writes the images and, when all are there, `examples.jsonl`; returns how many.

    A folder that holds the same examples, or the first of them, is written again. Raises `DataError` for one that holds others:
    nothing of it is changed.
    """
    path = folder / "examples.jsonl"
    before = [line for line in read_lines(path) if line.strip()] if path.exists() else []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    new = folder / "examples.jsonl.new"
    try:
        count = _write_each(examples, folder, new, before)
        if count < len(before):
            raise _other_examples(folder)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return count


def _write_each(examples: Iterable[Example], folder: Path, new: Path, before: Sequence[bytes]) -> int:
    """Writes images and lines; `before` are the lines that the folder holds."""
    count = 0
    with new.open("w", encoding="utf-8") as lines:
        for example in examples:
            names = [
                f"images/{example.id}{f'-{number}' if number else ''}.png"
                for number in range(len(example.images))
            ]
            line = json.dumps(fields_of(example, names), ensure_ascii=False)
            if count < len(before) and before[count].strip() != line.encode():
                raise _other_examples(folder)
            for name, image in zip(names, example.images, strict=True):
                assert isinstance(image, Image.Image), "examples are written from images in memory"
                image.save(folder / name)
            lines.write(line + "\n")
            count += 1
    return count


def _other_examples(folder: Path) -> DataError:
    return DataError(f"{folder} holds other examples; choose another --out, or remove that folder first.")


def read_examples(folder: Path) -> Iterator[Example]:
    """Yields the examples of a data folder. Raises `DataError` where a line is not one, or says what none has."""
    path = Path(folder) / "examples.jsonl"
    if not path.is_file():
        raise DataError(
            f"{folder} is not a data folder: it has no examples.jsonl. Expected one JSON object a line with "
            "id and image, and prompt, answer, family and source where there are any; `eyeline scenes` writes such a folder."
        )
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    found = False
    for number, line in enumerate(lines, start=1):
        try:
            if not line.strip():
                continue
            said = json.loads(decode_text(line))
            found = True
            image = said["image"]
            example = Example(
                id=str(said["id"]),
                image=tuple(path.parent / each for each in image)
                if isinstance(image, list)
                else path.parent / image,
                prompt=said.get("prompt", QUESTION),
                answer=said.get("answer", ""),
                family=said.get("family", OWN),
                source=said.get("source", OWN),
                trace=tuple(said.get("trace", ())),
                evidence=tuple(tuple(tuple(box) for box in boxes) for boxes in said.get("evidence", ())),
                prior=said.get("prior", False),
                matching=_matching(said["matching"]) if "matching" in said else None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"Line {number} of {path} is not an example ({type(error).__name__}: {error}). "
                "Expected id and image; prompt, answer, family and source may be left out."
            ) from error
        for name in said:
            if name not in FIELDS:
                near = difflib.get_close_matches(name, FIELDS, 1)
                known = f"nearest: {near[0]!r}." if near else f"expected {', '.join(FIELDS)}."
                raise DataError(f"Line {number} of {path} has a field {name!r} that no example has; {known}")
        yield example
    if not found:
        raise DataError(f"{path} is empty; expected one example a line, as `eyeline scenes` writes them.")


def _matching(fields: dict[str, Any]) -> Matching:
    """As a line holds it, with lists for tuples."""
    lists = {name: tuple(fields[name]) for name in ("choices", "also") if name in fields}
    return Matching(**{**fields, **lists})
