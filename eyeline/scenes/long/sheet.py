"""What there is to read and to ask of a long scene."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eyeline.scenes.canvas import Box

# cells across and down that images may have
GRIDS = (
    (10, 10), (10, 10), (12, 10), (10, 12), (11, 11), (12, 12), (12, 9), (9, 12), (14, 10), (10, 14), (9, 14), (13, 11),
)  # fmt: skip
WIDE = ((14, 10), (13, 11), (16, 9), (12, 12), (14, 9))
Value = str | int
Values = list[tuple[Value, ...]]  # of each line
Work = Callable[[Values], tuple[list[str], Value]]  # from what was read to conclusions and the answer


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to read: how it is said, with a place for each of its values."""

    said: str
    values: tuple[Value, ...]
    boxes: tuple[Box, ...]
    # how each value is put right, with places for it and the wrong one; empty: it is not misread
    mend: tuple[str, ...]
    pools: tuple[Sequence[str], ...] = ()  # words that each value could be misread as

    def tell(self, values: tuple[Value, ...]) -> str:
        return self.said.format(*values)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the question."""

    prompt: str
    work: Work


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything that is read and asked of a long scene."""

    lines: list[Line]
    parts: list[Part]
    whole: str  # what all of it is called
