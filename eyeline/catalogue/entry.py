"""One entry of the catalogue: where a public set is, what its rows hold, and how a row becomes a question."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyeline.examples import Box, Matching

Row = Mapping[str, Any]  # one row of a set, images as they are stored

BY_LETTER = "\nAnswer with the option's letter from the given choices directly."
BY_PHRASE = "\nAnswer the question using a single word or phrase."


class LeftOut(Exception):  # noqa: N818
    """A row that is no question with an image; its message is the reason."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a row asks, beside its images."""

    prompt: str
    answer: str
    matching: Matching
    boxes: tuple[Box, ...] = ()  # what the whole answer rests on, in pixels of the first image
    boxes_of: tuple[int, int] | None = None  # width and height that the boxes mean; None: the image's own


@dataclass(frozen=True, slots=True)
class PublicSet:
    """A public data set by name."""

    name: str
    family: str
    hub: tuple[str, ...]  # ids on the Hub, tried in turn; none: a release that is unpacked into a folder
    split: str
    rows: int | None  # of that split, as its card says
    columns: tuple[str, ...]  # that a row must have
    images: tuple[str, ...]  # those of them that hold images, in the order they are shown
    licence: str
    rule: str  # how answers are matched, in words
    read: Callable[[Row], Question]  # raises LeftOut
    configs: tuple[str | None, ...] = (None,)
    also_called: Mapping[str, str] = field(default_factory=dict)  # another name of a column, and ours
    pictures: tuple[str, str] | None = None  # configuration of rows `id`, `image`; the column that names one
    large: bool = False  # read row by row from the Hub, never downloaded whole
    released: Callable[[Path], Iterator[Row]] | None = None  # rows of an unpacked release
    note: str = ""  # what is left out, and why


def letters(choices: Sequence[str]) -> str:
    """A line for each choice, with its letter."""
    return "\n".join(f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(choices))


def text_of(row: Row, column: str) -> str:
    """A column's text, lines ended alike; empty where there is none."""
    value = row.get(column)
    return "" if value is None else str(value).replace("\r\n", "\n").strip()
