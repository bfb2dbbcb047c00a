"""Saved runs: a folder with the events of one stream, its images and its prompt.

`events.jsonl` holds one event a line as `eyeline.events.to_json` writes it, `image-0.png`, `image-1.png`, ...
the images, `run.json` the prompt; `games.safetensors` what its spans' numbers come from (kept_games.py), `trace.json` the token
ids with the options that they were generated with, for thinking again (rethinking.py). What is shown of a
run is left to `report` and `terminal`.
"""

import errno
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from eyeline.boxes import Evidence, Of, evidence_sets
from eyeline.errors import DataError, ImageError
from eyeline.events import Channel, Done, Event, RestsOn, SpanAttribution, Start, Text, from_json, to_json
from eyeline.files import cannot_write, decode_text, read_lines, read_text, write_files
from eyeline.images import open_image
from eyeline.kept_games import FILE, Games, Joint, read_games
from eyeline.targets import Target, answer_ranges, tokens_of

EVENTS, PROMPT, TRACE = "events.jsonl", "run.json", "trace.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One stream, complete or cut short: what was asked about which images, and what came back."""

    prompt: str
    images: tuple[Image.Image, ...]
    events: tuple[Event, ...]  # the first is a `Start`; without a `Done` the run was killed
    folder: Path | None = field(default=None, compare=False)  # that it was read from
    games: Games | None = field(default=None, compare=False, repr=False)  # of a run that is in memory alone
    notebook_view: ClassVar[Callable[["Run"], str] | None] = (
        None  # HTML; notebook.py, which stands above, registers it
    )

    @property
    def start(self) -> Start:
        assert isinstance(self.events[0], Start), "read_run refuses a run without its start"
        return self.events[0]

    def joint(self, target: Target | Any, regions: Sequence[int] = ()) -> Joint:
        """What hiding some regions together would do to a span, some words or characters: see `Stream.joint`.

        No model is needed. Raises `DataError`, for a run that keeps no numbers too, and `RegionError`.
        """
        return self._games().joint(tokens_of(target, self.events), regions)

    def rests_on(self, sets: Sequence[Sequence[int]] | None = None) -> RestsOn:
        """What the answer rests on through the thinking, of every region or of sets of them: see `Stream.rests_on`."""
        return self._games().rests_on(answer_ranges(self.events), sets)

    def evidence(self, of: Of = None) -> list[Evidence]:
        """Boxes and masks of what a span, by its index, or the `"answer"` rests on; by default of all: see `Stream.evidence`."""
        return evidence_sets(self.events, of)

    def _games(self) -> Games:
        if self.games is not None:
            return self.games
        if self.folder is None:
            raise DataError(
                "Only a saved or watched run keeps the numbers to ask about; read one with eyeline.runs.read_run."
            )
        return read_games(self.folder)

    def trace(self) -> tuple[list[int], dict[str, Any]]:
        """The token ids, and the options of `hf.generate` that they were generated with.

        Raises `DataError` where they are not kept.
        """
        try:
            if self.folder is None:
                raise FileNotFoundError
            kept = json.loads(read_text(self.folder / TRACE))
            return [int(token) for token in kept["ids"]], dict(kept["generation"])
        except FileNotFoundError as error:
            raise DataError(
                "The run does not keep its token ids: it was saved before Eyeline did, cut short, or written with options "
                "that no file can hold; write it again with `eyeline stream --save RUN`."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(damaged(self.folder, f"{TRACE} cannot be read ({error})")) from error  # pyright: ignore

    def __repr__(self) -> str:
        start = next((event for event in self.events if isinstance(event, Start)), None)
        done = next((event for event in self.events if isinstance(event, Done)), None)
        spans = [event for event in self.events if isinstance(event, SpanAttribution)]
        if start is None:
            read = "nothing was read"
        else:
            estimator = f"by {start.estimator!r}" if start.estimator else "without an estimator"
            read = f"read by {start.model!r}, in {start.unit} {estimator}"
        sizes = ", ".join(f"{image.width} x {image.height}" for image in self.images) or "none"
        regions = len({label for grid in start.regions for row in grid for label in row}) if start else 0
        ended = f"{done.tokens} tokens, ended by {done.reason}" if done else "cut short"
        return (
            f"Run, {read}\n"
            f"  prompt: {_shorten(self.prompt)}\n"
            f"  images: {sizes} pixels, {regions} regions\n"
            f"  trace: {len(spans)} attributed spans, {ended}\n"
            f"  answer: {_shorten(done.answer) if done else 'none yet'}"
        )

    def _repr_html_(self) -> str | None:
        """What a notebook shows of a run."""
        view = Run.notebook_view
        return None if view is None else view(self)


class RunWriter:
    """Writes a run while it happens; each event is in the file, whole, when `write` returns.

    A folder of anything else is refused at once. Entering makes the folder and writes images and prompt, all
    or none; an earlier run in the same folder makes way. Raises `DataError`, for a full disk too.
    """

    def __init__(self, folder: str | Path, images: Sequence[Image.Image], prompt: str):
        self.folder, self.images, self.prompt = Path(folder), images, prompt
        self.events: FileIO | None = None
        _refuse_other_folders(self.folder)

    def __enter__(self) -> "RunWriter":
        about = {"prompt": self.prompt, "created": datetime.now(UTC).isoformat(timespec="seconds")}
        files = {
            self.folder / EVENTS: b"",
            self.folder / PROMPT: _encode(json.dumps(about, ensure_ascii=False)),
        }
        for number, image in enumerate(self.images):
            png = io.BytesIO()
            image.convert("RGB").save(png, "PNG")
            files[self.folder / f"image-{number}.png"] = png.getvalue()
        made = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_files(files)
            for left in (FILE, TRACE):
                (self.folder / left).unlink(missing_ok=True)
            for left in set(self.folder.glob("image-*.png")) - set(
                files
            ):  # of an earlier run with more images
                left.unlink()
            self.events = FileIO(self.folder / EVENTS, "a")
        except (OSError, DataError) as error:
            if made:
                with suppress(OSError):
                    self.folder.rmdir()
            raise error if isinstance(error, DataError) else cannot_write(self.folder, error) from error
        return self

    def write(self, event: Event) -> None:
        """Appends one event. Raises `DataError` where it cannot; the lines before it stay readable."""
        assert self.events is not None, "used as a context manager"
        line, position = _encode(to_json(event) + "\n"), self.events.seek(0, os.SEEK_END)
        try:
            if self.events.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                self.events.truncate(position)
            raise cannot_write(self.folder, error) from error

    def keep(self, games: Games, ids: Sequence[int], generation: Mapping[str, Any]) -> None:
        """Writes what the spans' numbers come from, and how the trace was generated, for whoever asks later; once, at the end.

        Raises `DataError`.
        """
        keep(self.folder, games, ids, generation)

    def __exit__(self, *_: object) -> None:
        if self.events is not None:
            self.events.close()


def save_run(folder: str | Path, images: Sequence[Image.Image], prompt: str) -> RunWriter:
    """`with save_run(folder, images, prompt) as run:` then `run.write(event)` for each event."""
    return RunWriter(folder, images, prompt)


def keep(folder: Path, games: Games, ids: Sequence[int], generation: Mapping[str, Any]) -> None:
    """What `RunWriter.keep` does. Options that JSON cannot hold leave a run that cannot be thought again. Raises `DataError`."""
    games.save(folder)
    try:
        kept = json.dumps({"ids": list(ids), "generation": dict(generation)})
    except (TypeError, ValueError):
        return
    write_files({folder / TRACE: _encode(kept)})


def read_run(folder: str | Path) -> Run:
    """The run that `save_run` wrote; of a killed one, everything up to its last whole line.

    Raises `DataError` where the folder is no run, a file of it is missing or damaged, or its events tell two texts.
    """
    folder = Path(folder)
    if not (folder / EVENTS).is_file():
        raise DataError(
            f"{str(folder)!r} is not a saved run: it has no {EVENTS}; "
            "give a folder that `eyeline stream --save RUN` wrote."
        )
    name = EVENTS
    try:
        lines = read_lines(folder / EVENTS)
        name = PROMPT
        prompt = json.loads(read_text(folder / PROMPT))["prompt"]
        if not isinstance(prompt, str):
            raise TypeError("the prompt is not text")
    except FileNotFoundError as error:
        raise DataError(damaged(folder, f"{PROMPT} is missing")) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(damaged(folder, f"{name} cannot be read ({error})")) from error

    events = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            events.append(from_json(decode_text(line)))
        except (DataError, ValueError) as error:
            if number == len(lines):  # no newline after it: the writer was killed in the middle
                break
            why = "is not an event" if isinstance(error, DataError) else f"cannot be read ({error})"
            raise DataError(damaged(folder, f"line {number} of {EVENTS} {why}")) from error
    if not events or not isinstance(events[0], Start):
        raise DataError(damaged(folder, f"{EVENTS} does not begin with a start event"))
    start = events[0]
    try:
        _check_shapes(folder, start, events)
        _check_texts(folder, events)
    except TypeError as error:  # a number where a list is expected
        raise DataError(damaged(folder, "its events hold values of the wrong kind")) from error
    try:
        images = tuple(open_image(folder / f"image-{number}.png") for number in range(len(start.images)))
    except ImageError as error:
        raise DataError(f"The saved run {str(folder)!r} has lost an image: {error}") from error
    return Run(prompt, images, tuple(events), folder)


def whole_lines(folder: Path) -> Iterator[str]:
    """The events written so far, one in each line with its newline: a line without one is being written."""
    with (folder / EVENTS).open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line.decode()


def events_so_far(folder: Path) -> Iterator[Event]:
    """The events of a run that may still be written, or was cut short."""
    return map(from_json, whole_lines(folder))


def _refuse_other_folders(folder: Path) -> None:
    try:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{str(folder)!r} is a file: a run is saved as a folder; give another name.")
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise DataError(f"{str(folder)!r} cannot be read ({error.strerror}); give another folder.") from error
    if EVENTS not in names and any(not name.endswith(".part") for name in names):
        raise DataError(f"{str(folder)!r} is not empty and holds no saved run: give a new or empty folder.")


def _check_shapes(folder: Path, start: Start, events: Sequence[Event]) -> None:
    """Everything later code indexes by: grids as large as announced, one effect for each region."""
    shapes = [(image.rows, image.cols) for image in start.images]
    labels = {label for grid in start.regions for row in grid for label in row}
    if not _fits(start.regions, shapes) or labels != set(range(len(labels))):
        raise DataError(damaged(folder, "the label grids in its start event do not fit its images"))
    for event in events:
        if isinstance(event, SpanAttribution) and not (
            len(event.effects) == len(labels)
            and (event.interval is None or len(event.interval) == len(labels))
            and (event.patches is None or _fits(event.patches, shapes))
        ):
            raise DataError(damaged(folder, f"span {event.index} does not have {len(labels)} effects"))


def _fits(grids: Sequence[Any], shapes: Sequence[tuple[int, int]]) -> bool:
    return len(grids) == len(shapes) and all(
        len(grid) == rows and all(len(row) == cols for row in grid)
        for grid, (rows, cols) in zip(grids, shapes, strict=True)
    )


def span_of(events: Iterable[Event], index: int) -> SpanAttribution:
    """A span by its number. Raises `DataError`."""
    spans = {event.index: event for event in events if isinstance(event, SpanAttribution)}
    if index not in spans or isinstance(index, bool):
        raise DataError(f"There is no span {index!r}; expected one of 0 to {max(spans, default=-1)}.")
    return spans[index]


def text_of(events: Iterable[Event], channel: Channel) -> str:
    """All text of a channel."""
    return "".join(event.text for event in events if isinstance(event, Text) and event.channel == channel)


def _check_texts(folder: Path, events: Sequence[Event]) -> None:
    """Spans and the last event say again what text events say: views show either."""
    texts: dict[Channel, str] = {"thinking": text_of(events, "thinking"), "answer": text_of(events, "answer")}
    read: dict[Channel, int] = dict.fromkeys(texts, 0)
    for event in events:
        if isinstance(event, SpanAttribution):
            at = texts[event.channel].find(event.text, read[event.channel])
            if at < 0:
                raise DataError(
                    damaged(folder, f"span {event.index} says another text than the text events before it")
                )
            read[event.channel] = at + len(event.text)
        elif isinstance(event, Done) and event.answer != texts["answer"].strip():
            raise DataError(damaged(folder, "its answer is another text than its text events say"))


def damaged(folder: Path, what: str) -> str:
    """The sentence for a run that cannot be believed."""
    return (
        f"The saved run {str(folder)!r} is damaged: {what}; write it again with `eyeline stream --save RUN`."
    )


def _shorten(text: str) -> str:
    """On one line of a terminal, whatever the text holds."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else text[:79] + "…")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # a prompt from the command line may hold lone surrogates
