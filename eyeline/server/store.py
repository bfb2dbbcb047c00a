"""Runs on disk: what is listed in SQLite, events and images in a folder for each run.

The folder is that of `eyeline.runs`. While a run is written its file is also the buffer between the model and the
readers: each response follows it at its own pace, and a slow one holds a position, not a copy.
"""

import asyncio
import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from eyeline.errors import DataError
from eyeline.events import Done, Event
from eyeline.runs import EVENTS, RunWriter, events_so_far, save_run
from eyeline.server.request_error import RequestError, not_found

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    answer TEXT NOT NULL DEFAULT '',
    images INTEGER NOT NULL,
    reason TEXT,
    saved INTEGER NOT NULL,
    question TEXT NOT NULL,
    token_ids TEXT NOT NULL DEFAULT '[]'
)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What the database knows of a run."""

    number: int
    id: str
    created: float
    model: str
    prompt: str
    answer: str
    images: int
    reason: str | None
    saved: bool
    question: Mapping[str, Any]  # messages, options, hidden: what to ask to get the run again
    token_ids: Sequence[int]


class Log:
    """The events of a run that is being written, for any number of readers."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self.path = writer.folder / EVENTS
        self.closed = False
        self._changed = asyncio.Event()

    def write(self, event: Event) -> None:
        self._writer.write(event)
        self._wake()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._writer.__exit__()
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def read(self) -> list[Event]:
        """The events written so far."""
        return list(events_so_far(self.path.parent))

    async def wait(self, seconds: float) -> None:
        """Until something is written, or the time is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    async def follow(self, patience: float) -> AsyncIterator[bytes]:
        """The lines written so far and those to come; an empty one whenever nothing came for `patience` seconds."""
        with self.path.open("rb") as file:
            while True:
                if line := file.readline():
                    yield line
                    await asyncio.sleep(0)  # other readers' turn
                elif self.closed:
                    return
                else:
                    changed = self._changed
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), patience)
                        continue
                    yield b""


class Store:
    """The runs below one folder, for one process at a time, which others are kept out by, and one event loop."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "runs"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(data / "runs.sqlite", check_same_thread=False, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA busy_timeout=2000")
            # what follows would remove another server's runs
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(SCHEMA)
            self._db.execute("BEGIN EXCLUSIVE")  # a lock once had is kept
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            locked = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            why = "another server keeps its runs there" if locked else error
            raise DataError(
                f"Runs cannot be kept in {str(data)!r} ({why}); give another folder with --data."
            ) from error
        for row in self._db.execute("SELECT id FROM runs WHERE NOT saved").fetchall():
            self._remove(row["id"])  # of a server that was killed
        known = {row["id"] for row in self._db.execute("SELECT id FROM runs")}
        for left in self.folder.glob("run-*"):
            if left.name not in known:
                shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        self._db.close()

    # --- writing

    def new_id(self) -> str:
        return f"run-{secrets.token_hex(12)}"

    def prepare(self, run: str, images: Sequence[Image.Image], prompt: str) -> RunWriter:
        """Writes a new run's images; may be called in any thread. Raises a `RequestError` where they cannot be written."""
        try:
            return save_run(self.folder / run, images, prompt).__enter__()
        except DataError as error:
            raise RequestError(500, "internal", str(error)) from error

    def add(
        self, run: str, writer: RunWriter, model: str, question: Mapping[str, Any], *, saved: bool
    ) -> Log:
        """Lists a run that was prepared. Raises a `RequestError` where the disk does not take it; then its folder goes."""
        try:
            self._db.execute(
                "INSERT INTO runs (id, created, model, prompt, images, saved, question) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (run, time.time(), model, writer.prompt, len(writer.images), saved, json.dumps(question)),
            )
        except sqlite3.Error as error:
            writer.__exit__()
            shutil.rmtree(writer.folder, ignore_errors=True)
            raise RequestError(
                500, "internal", f"The run could not be kept ({error}); free some space."
            ) from error
        writer.images = ()  # they are on disk now
        return Log(writer)

    def finish(self, run: str, done: Done, token_ids: Sequence[int]) -> None:
        self._db.execute(
            "UPDATE runs SET reason = ?, answer = ?, token_ids = ? WHERE id = ?",
            (done.reason, done.answer.encode("utf-8", "replace").decode(), json.dumps(token_ids), run),
        )

    def discard(self, run: str) -> None:
        """Removes a run that exists; the folder first, so that nothing is left where this is cut short."""
        self._remove(run)

    def _remove(self, run: str) -> None:
        shutil.rmtree(self.folder / run, ignore_errors=True)
        self._db.execute("DELETE FROM runs WHERE id = ?", (run,))

    # --- reading

    def get(self, run: str) -> Row:
        """Raises a `RequestError` for an id that is in no row: only what we named ourselves names a folder."""
        row = self._db.execute("SELECT * FROM runs WHERE id = ?", (_plain(run),)).fetchone()
        if row is None:
            raise not_found("such run")
        return _row(row)

    def folder_of(self, row: Row) -> Path:
        return self.folder / row.id

    def search(self, query: str, limit: int, before: str | None) -> tuple[list[Row], str | None]:
        """Saved runs, newest first, and the cursor of the next page."""
        last = 2**62
        if before is not None:
            if not (before.isascii() and before.isdigit() and len(before) < 19):
                raise RequestError(
                    400, "invalid_value", "`before` takes the `next` of a list.", param="before"
                )
            last = int(before)
        pattern = "%" + _plain(query).replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
        found = self._db.execute(
            "SELECT * FROM runs WHERE saved AND number < ? "
            r"AND (prompt LIKE ? ESCAPE '\' OR answer LIKE ? ESCAPE '\') ORDER BY number DESC LIMIT ?",
            (last, pattern, pattern, limit + 1),
        ).fetchall()
        rows = [_row(row) for row in found[:limit]]
        return rows, str(rows[-1].number) if len(found) > limit else None


def _row(row: sqlite3.Row) -> Row:
    values = dict(row)
    values |= {name: json.loads(values[name]) for name in ("question", "token_ids")}
    return Row(**{**values, "saved": bool(values["saved"])})


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
