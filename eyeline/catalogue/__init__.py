"""Public data sets by name, as the same `Example`s that data folders hold: `eyeline data` lists them."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import cast, get_args

from PIL import Image

from eyeline.catalogue import (
    code_sets,
    document_sets,
    evidence_sets,
    general_sets,
    maths_sets,
    science_sets,
)
from eyeline.catalogue.entry import LeftOut, PublicSet, Question, Row
from eyeline.catalogue.rows import rows_of
from eyeline.catalogue.shown import Part, part_of, picture_of
from eyeline.errors import DataError, ImageError
from eyeline.examples import Box, Example, read_examples

SHELVES = (maths_sets, science_sets, document_sets, code_sets, general_sets, evidence_sets)
SETS: dict[str, PublicSet] = {found.name: found for shelf in SHELVES for found in shelf.SETS}


def find_set(name: str) -> PublicSet:
    """A set by its name, in any case. Raises `DataError`, with the nearest names."""
    plain = name.casefold().replace("_", "-")
    if plain not in SETS:
        near = difflib.get_close_matches(plain, SETS, 3, 0.5)
        meant = f"nearest: {', '.join(near)}." if near else f"there are {', '.join(SETS)}."
        raise DataError(f"There is no public set of the name {name!r}; {meant}")
    return SETS[plain]


class PublicExamples(Iterable[Example]):
    """The questions of a public set, read as they are asked for; `left_out` then counts rows that are none, by reason.

    `part`: `fit` or `test`, by a hash of an image's pixels, so that no image is in both; a question whose images are of both
    is in neither. `few`: nothing is downloaded whole for them. Raises `DataError` as `rows_of` does.
    """

    def __init__(
        self, found: PublicSet, part: Part = "all", folder: Path | None = None, limit: int | None = None, few: bool = False
    ):  # fmt: skip
        self.found, self.part, self.folder, self.limit, self.few = found, part, folder, limit, few
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Example]:
        self.left_out.clear()
        return islice(self._all(), self.limit)

    def _all(self) -> Iterator[Example]:
        for name, row in rows_of(self.found, self.folder, self.few):
            try:
                pictures = self._pictures(row)
                if not self._wanted(pictures):
                    continue
                question = self.found.read(row)
            except LeftOut as reason:
                self.left_out[str(reason)] += 1
                continue
            except (TypeError, ValueError, KeyError) as error:
                raise DataError(
                    f"Row {name} of {self.found.name} is not as its columns should be ({type(error).__name__}: {error}); "
                    f"expected rows as {(*self.found.hub, 'its release')[0]} has them."
                ) from error
            yield _example(self.found, name, pictures, question)

    def _wanted(self, pictures: list[Image.Image]) -> bool:
        if self.part == "all":
            return True
        part = part_of(pictures)
        if part is None:
            raise LeftOut("with images of both parts")
        return part == self.part

    def _pictures(self, row: Row) -> list[Image.Image]:
        try:
            found = [picture_of(row.get(name)) for name in self.found.images]
        except ImageError as error:
            raise LeftOut("with an image that cannot be used") from error
        pictures = [picture for picture in found if picture is not None]
        if not pictures:
            raise LeftOut("without an image")
        return pictures


def _example(found: PublicSet, name: str, pictures: list[Image.Image], question: Question) -> Example:
    boxes = tuple(_scaled(box, question.boxes_of, pictures[0].size) for box in question.boxes)
    return Example(
        id=f"{found.name}-{name}",
        image=pictures[0] if len(pictures) == 1 else tuple(pictures),
        prompt=question.prompt,
        answer=question.answer,
        family=found.family,
        source=found.name,
        evidence=(boxes,) if boxes else (),
        matching=question.matching,
    )


def _scaled(box: Box, meant: tuple[int, int] | None, size: tuple[int, int]) -> Box:
    """A box in pixels of an image of the size `meant`, in pixels of the same image in another size."""
    across, down = (1.0, 1.0) if meant is None else (size[0] / meant[0], size[1] / meant[1])
    left, top, right, bottom = box
    return round(left * across), round(top * down), round(right * across), round(bottom * down)


def examples_of(
    data: str, part: Part, folder: Path | None = None, limit: int | None = None
) -> tuple[Iterable[Example], int | None]:
    """The examples of a data folder, or of a public set by name, `NAME:PART` for another part; and how many, where that is known.

    Raises `DataError` for neither, and for a set that cannot be read.
    """
    name, _, told = data.partition(":")
    if (Path(data) / "examples.jsonl").is_file() or (Path(data).is_dir() and name.casefold() not in SETS):
        if folder is not None:
            raise DataError(f"{data} is a data folder; --folder is for a public set by name, leave it out.")
        examples = list(islice(read_examples(Path(data)), limit))
        return examples, len(examples)
    if told and told not in get_args(Part):
        raise DataError(f"{told!r} is no part of a public set; expected {', '.join(get_args(Part))}.")
    try:
        found = find_set(name)
    except DataError as error:
        raise DataError(f"There is no data folder {data!r}, and as a public set: {error}") from error
    chosen = cast(Part, told) if told else part
    examples = PublicExamples(found, chosen, folder, limit)
    if next(iter(examples), None) is None:  # what cannot be read is told before any work
        raise DataError(
            f"{found.name} has no question with an image in its part {chosen} here; take another part or copy."
        )
    return examples, limit
