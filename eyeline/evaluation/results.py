"""How measurements are written: rows as CSV, figures as PNG and SVG. Files are replaced whole or not at all."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from eyeline.errors import EyelineError
from eyeline.runs import write_files

OURS, PLAIN, QUIET = "#b3402a", "#3b5b7a", "#77736c"  # colours of Eyeline, of rivals, of what both stand on


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


def write_png(figure: Any, path: Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    write_files({path: png.getvalue()})


def svg(figure: Any) -> str:
    """The figure as an element of HTML, the same whenever it is drawn of the same numbers."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
