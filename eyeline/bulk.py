"""Traces that exist already, a whole log of them, to a table: one row a span and one an answer, in Parquet files.

A file is written when it is whole, so that a log that was stopped goes on where it was. Traces run through the model one after
the other, for a capture follows one sequence; the images of the next are read meanwhile.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from eyeline.boxes import around
from eyeline.errors import DataError, EyelineError
from eyeline.estimator import Estimator
from eyeline.estimator_files import ATTENTION, digest, estimator_for
from eyeline.events import Done, Error, RestsOn, SpanAttribution, Start, Unit
from eyeline.files import decode_text, make_folder, read_text, write_first
from eyeline.fingerprint import fingerprint
from eyeline.images import open_image
from eyeline.model import Model
from eyeline.stream import attribute
from eyeline.version import __version__

FIELDS = "image, prompt and text, and if need be an id"
BOX = ("image", "left", "top", "right", "bottom")  # the image's number, pixels
Opened = list[Image.Image]


@dataclass(frozen=True, slots=True)
class Trace:
    """One line of a log."""

    id: str
    images: tuple[Path, ...]
    prompt: str
    text: str  # what follows the prompt, markers included


def read_trace_line(line: bytes, number: int, folder: Path) -> Trace:
    """The trace of a line; image paths are relative to the log's folder. Raises `DataError`."""
    try:
        fields = json.loads(decode_text(line))
        images = fields["image"] if isinstance(fields["image"], list) else [fields["image"]]
        prompt, text = fields["prompt"], fields["text"]
        if not isinstance(prompt, str) or not isinstance(text, str):
            raise TypeError("prompt and text are to be texts")
        name = str(fields.get("id", number))
        return Trace(name, tuple(folder / image for image in images), prompt, text)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Line {number + 1} is no trace ({type(error).__name__}: {error}); expected a JSON object with {FIELDS}."
        ) from error


def attribute_log(
    model: Model, log: Path, out: Path, *, estimator: str | Path | Estimator | None = None, regions: str = "native",
    traces: int = 64,
) -> Iterator[int]:  # fmt: skip
    """Attributes every trace of a log that the folder does not hold yet; yields the number of each line as it is done.

    A trace that cannot be attributed is one row with its `error`. `traces` is how many a file holds. Raises `DataError` where
    the log cannot be read or its first line is no trace, where the folder holds something else, and for a full disk.
    """
    library = _library()
    found = estimator if isinstance(estimator, Estimator) else estimator_for(model, estimator)
    first = next(_batches(log, 1), None)
    if first is None:
        raise DataError(f"{log} is empty; expected a JSON object a line with {FIELDS}.")
    read_trace_line(first[0], 0, log.parent)
    _open_folder(model, found, regions, traces, out)
    begin = 0
    for number, lines in enumerate(_batches(log, traces)):
        path = out / f"spans-{number:05d}.parquet"
        stamp = hashlib.sha256(b"\n".join(lines)).hexdigest()
        if path.exists():
            _check_stamp(library, path, stamp)
            yield from range(begin, begin + len(lines))
        else:
            rows: list[dict[str, Any]] = []
            for line in _read_ahead(lines, begin, log.parent):
                rows += _rows(model, line, found, regions)
                yield line.number
            write_first(path, _parquet(library, rows, stamp))
        begin += len(lines)


def count_lines(log: Path) -> int:
    """Lines of a log that hold something. Raises `DataError`."""
    return sum(len(lines) for lines in _batches(log, 4096))


def _library() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise EyelineError(
            "Tables of spans need the package pyarrow: pip install 'eyeline[data]'."
        ) from error
    return pyarrow


def _batches(log: Path, size: int) -> Iterator[list[bytes]]:
    try:
        with log.open("rb") as file:
            lines = (line for line in file if line.strip())
            while batch := list(islice(lines, size)):
                yield batch
    except OSError as error:
        raise DataError(f"{log} cannot be read ({error.strerror}); expected a file of traces.") from error


def _open_folder(model: Model, estimator: Estimator | None, regions: str, traces: int, out: Path) -> None:
    run = {
        "version": __version__, "model": model.name, "fingerprint": fingerprint(model), "regions": regions, "traces": traces,
        "estimator": None if estimator is None else estimator.id, "digest": None if estimator is None else digest(estimator),
    }  # fmt: skip
    path = out / "run.json"
    if not path.exists():
        strange = out.exists() and (
            not out.is_dir() or any(not each.name.endswith(".part") for each in out.iterdir())
        )
        if strange and not path.exists():  # another process may have opened it meanwhile
            raise DataError(f"{out} is no empty folder and holds no spans; choose another --out.")
        make_folder(out)
        write_first(path, (json.dumps(run, indent=2) + "\n").encode())
    try:
        before = json.loads(read_text(path))
        different = [name for name, value in run.items() if before.get(name) != value]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}); choose another --out.") from error
    if different:
        raise DataError(f"{out} holds spans with another {', '.join(different)}; choose another --out.")


def _check_stamp(library: Any, path: Path, stamp: str) -> None:
    try:
        before = (library.parquet.read_schema(path).metadata or {}).get(b"lines", b"").decode()
    except (OSError, library.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); remove it and run the same again."
        ) from error
    if before != stamp:
        raise DataError(
            f"{path} was made of other lines than the log has here; choose another --out, or remove the file and run the same "
            "again."
        )


@dataclass(frozen=True, eq=False)
class _Line:
    number: int
    trace: Trace | None
    opened: "Future[Opened] | None"
    error: str = ""


def _read_ahead(lines: Sequence[bytes], begin: int, folder: Path) -> Iterator[_Line]:
    """Each line as a trace, the images of two more being read meanwhile."""
    with ThreadPoolExecutor(2) as pool:
        waiting: list[_Line] = []
        for number, line in enumerate(lines, start=begin):
            try:
                trace = read_trace_line(line, number, folder)
                waiting.append(
                    _Line(
                        number,
                        trace,
                        pool.submit(lambda some: [open_image(image) for image in some], trace.images),
                    )
                )
            except DataError as error:
                waiting.append(_Line(number, None, None, str(error)))
            if len(waiting) > 2:
                yield waiting.pop(0)
        yield from waiting


def _rows(model: Model, line: _Line, estimator: Estimator | None, regions: str) -> list[dict[str, Any]]:
    """One row a span, one for the answer where the estimator knows earlier text, and one for each thing that was lost."""
    trace = line.trace
    about = {"line": line.number, "id": str(line.number) if trace is None else trace.id}
    if trace is None or line.opened is None:
        return [about | {"error": line.error}]
    rows: list[dict[str, Any]] = []
    start: Start | None = None
    try:
        pictures = line.opened.result()
        with attribute(
            model,
            pictures,
            trace.prompt,
            _after_prompt(model, pictures, trace),
            estimator=estimator or ATTENTION,
            regions=regions,
        ) as events:
            for event in events:
                if isinstance(event, Start):
                    start = event
                elif isinstance(event, Error):
                    rows.append(about | {"error": event.message})
                elif isinstance(event, SpanAttribution) and start is not None:
                    rows.append(about | _span(event, start))
                elif isinstance(event, Done) and event.rests_on is not None and start is not None:
                    rows.append(about | _answer(event.answer, event.rests_on, start.unit))
    except EyelineError as error:
        rows.append(about | {"error": str(error)})
    return rows


def _after_prompt(model: Model, pictures: Opened, trace: Trace) -> str:
    """The text without the marker that opens thinking, where the prompt ends with it already: many logs write it again."""
    markers = model.adapter.thinking_markers
    text = trace.text
    if markers and text.lstrip().startswith(markers[0]):
        inputs = model.inputs(pictures, trace.prompt)
        if model.prompt_opens_thinking(inputs["input_ids"]):
            return text.lstrip().removeprefix(markers[0])
    return text


def _span(event: SpanAttribution, start: Start) -> dict[str, Any]:
    evidence = [region for region, _ in event.evidence or ()]
    return {
        "span": event.index, "channel": event.channel, "start": event.start, "end": event.end, "text": event.text,
        "effects": event.effects, "contributions": event.contributions, "evidence": evidence, "reliance": event.whole_image,
        "boxes": region_boxes(start, evidence), "log_prob": event.log_prob, "cut": event.cut, "unit": start.unit,
        "sources": [span for span, _ in event.sources or ()], "grounded": event.grounded,
    }  # fmt: skip


def _answer(answer: str, found: RestsOn, unit: Unit) -> dict[str, Any]:
    """The answer as a whole, and what it rests on through the thinking."""
    return {
        "channel": "answer", "text": answer, "effects": found.direct, "total": found.total, "changes": found.changes,
        "sources": [span for span, _ in found.sources], "unit": unit,
    }  # fmt: skip


def region_boxes(start: Start, regions: Sequence[int]) -> list[dict[str, int]]:
    """The box around each region, as a row holds it."""
    return [
        dict(zip(BOX, (image, *box), strict=True)) for image, box in (around(start, each) for each in regions)
    ]


def _parquet(library: Any, rows: Sequence[dict[str, Any]], stamp: str) -> bytes:
    whole, real, text = library.int32(), library.float32(), library.string()
    reals, box = library.list_(real), library.struct([(name, whole) for name in BOX])
    columns = {
        "line": library.int64(), "id": text, "span": whole, "channel": text, "start": whole, "end": whole, "text": text,
        "effects": reals, "contributions": reals, "evidence": library.list_(whole), "reliance": real,
        "boxes": library.list_(box), "log_prob": real, "cut": library.bool_(), "unit": text,
        "sources": library.list_(whole), "grounded": library.bool_(), "total": reals, "changes": reals, "error": text,
    }  # fmt: skip
    schema = library.schema(list(columns.items()), metadata={"lines": stamp})
    file = io.BytesIO()
    library.parquet.write_table(library.Table.from_pylist(list(rows), schema=schema), file)
    return file.getvalue()
