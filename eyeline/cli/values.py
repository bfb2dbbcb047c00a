"""Kinds of values that options take, beside click's own."""

import contextlib
import math
from io import StringIO
from typing import Any

import click

from eyeline.cli.choices import LAST_SEED
from eyeline.files import decode_text


class Real(click.FloatRange):
    """A range without nan and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Joined(click.ParamType):
    """Different values of another type, joined by commas."""

    name = "A,B,..."

    def __init__(self, of: click.ParamType):
        self.of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        parts = (self.of.convert(part.strip(), param, ctx) for part in value.split(","))
        return tuple(dict.fromkeys(parts))


class Text(click.File):
    """What a UTF-8 file says."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            text = decode_text(super().convert(value, param, ctx).read())
        except ValueError as error:
            self.fail(f"{str(value)!r} cannot be read: {error}", param, ctx)
        return StringIO(text, newline=None).read()  # lines end as in any text file


class Source(click.Choice):
    """A source of regions that cuts any image; dinov3 may name its model, the others how many regions."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        source, _, more = value.partition(":")
        if more and source != "dinov3" and not (more.isascii() and more.isdecimal() and int(more) > 1):
            self.fail(f"{more!r} is no number of regions from 2 on, as in native:32.", param, ctx)
        return value if more and source in self.choices else super().convert(value, param, ctx)


class Seeds(click.ParamType):
    """A:B, from A up to B."""

    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with contextlib.suppress(ValueError):
            first, end = (int(part) for part in value.split(":"))
            if 0 <= first < end <= LAST_SEED + 1:
                return range(first, end)
        self.fail(f"{value!r} is not A:B with 0 <= A < B <= {LAST_SEED + 1}, like 0:100.", param, ctx)


class Part(click.ParamType):
    """I/N, one part of N, counted from 0."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        with contextlib.suppress(ValueError):
            index, of = (int(part) for part in value.split("/"))
            if 0 <= index < of:
                return index, of
        self.fail(f"{value!r} is not I/N with 0 <= I < N, like 0/4 to 3/4.", param, ctx)
