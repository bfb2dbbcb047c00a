"""How a measurement's command writes: rows as CSV, figures as PNG and SVG. Files are replaced whole or not at all."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import click

from eyeline.errors import DataError, EyelineError
from eyeline.files import check_room, write_files

OURS, PLAIN, QUIET = "#b3402a", "#3b5b7a", "#77736c"  # colours of Eyeline, of rivals, of what both stand on
LONGEST_NAME = 32  # characters of a name in a figure
KEPT_END = 12  # of a longer one: names of the same method differ at their end


@contextmanager
def writing(out: Path, *, figure: bool = True) -> Iterator[None]:
    """Around a command that writes a CSV, and a figure beside it: refuses before the work, and tells errors as sentences."""
    try:
        if out.suffix != ".csv":
            raise DataError(f"{out} is no name of a CSV; give --out a name that ends in .csv.")
        if figure:
            new_figure(1.0, 1.0)
        out.parent.mkdir(parents=True, exist_ok=True)
        check_room(out)
        yield
    except EyelineError as error:
        raise click.ClickException(str(error)) from error
    except (ConnectionError, TimeoutError):  # of a server that is measured, no matter of files
        raise
    except OSError as error:
        what = error.filename or out
        raise click.ClickException(
            f"{what} cannot be read or written ({error.strerror}); check its path, its rights and the disk."
        ) from error


def write_csv(kind: type, rows: Sequence[Any], path: Path, digits: str = ".4f") -> None:
    """Rows of one dataclass, their fields as columns; real numbers in the format given, None as nothing."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    for row in rows:
        writer.writerow(format(each, digits) if isinstance(each, float) else each for each in astuple(row))
    write_files({path: text.getvalue().encode()})


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches. Raises `EyelineError` where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EyelineError("Figures need matplotlib: pip install 'eyeline[evaluate]'.") from error
    return Figure(figsize=(width, height), layout="constrained")


def in_figure(name: str) -> str:
    """What a figure writes for a name of the user's: short, on one line, no formula, only characters that its font has."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("sans")).get_charmap()
    name = "".join(letter if ord(letter) in known else "?" for letter in " ".join(name.split()))
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 1 - KEPT_END]}…{name[-KEPT_END:]}"
    return name.replace("$", r"\$")


def error_bars(values: Iterable[tuple[float, float | None, float | None]]) -> list[list[float]]:
    """How far bars reach below and above values, of (value, low, high); NaN, which is not drawn, where there is no interval."""
    reach = [
        (math.nan, math.nan) if low is None or high is None else (value - low, high - value)
        for value, low, high in values
    ]
    return [[below for below, _ in reach], [above for _, above in reach]]


def write_png(figure: Any, path: Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    write_files({path: png.getvalue()})


def svg(figure: Any) -> str:
    """The figure as an element of HTML, the same whenever it is drawn of the same numbers."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "eyeline"}):  # ids in it are random otherwise
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
