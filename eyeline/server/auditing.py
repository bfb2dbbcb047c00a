"""Spans of questions measured while nobody waits: a few subsets at a time, behind all questions, for a share of the time.

What is measured and how it is kept is audit.py's; a batch is a job of the model's process like any other, so that none runs
beside a question.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI

from eyeline import audit
from eyeline.errors import DataError
from eyeline.events import SpanAttribution, Start
from eyeline.kept_games import Games, read_games
from eyeline.runs import events_so_far
from eyeline.server.asking import Desk
from eyeline.server.engine import EngineDiedError
from eyeline.server.store import Row

log = logging.getLogger("eyeline.server")
SPANS_OF_A_RUN = 8
RUNS_WAITING = 32  # older ones are not measured
RUNS_REMEMBERED = 200  # the newest, that are looked through for measured spans at the start
BATCH_S = (
    0.4  # that a batch is to take: a question that comes waits no longer, unless a single pass is slower
)
CLIENT = "audit"


class Auditor:
    """Measures spans of the newest saved run first; the numbers of what was measured are `record`'s."""

    def __init__(
        self, desk: Desk, share: float, *, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self.desk, self.share, self.clock, self.sleep = desk, share, clock, sleep
        self.record = audit.Record(desk.engine.about.expected)
        self.runs: deque[str] = deque(maxlen=RUNS_WAITING)
        self.news = asyncio.Event()
        self.taken = 0  # runs so far
        self.batch = 1  # subsets
        self.seconds = 0.0  # of the model's time, spent here
        self._remember()

    def told(self) -> dict[str, Any]:
        """What `GET /v1/audit` says."""
        return {"on": True, "share": self.share, "seconds": round(self.seconds, 3), **self.record.told()}

    def take(self, row: Row) -> None:
        """A question that has ended; it is measured if its run is kept and nothing was hidden from it."""
        if row.saved and row.question["hidden"] is None:
            self.runs.append(row.id)
            self.taken += 1
            self.news.set()

    async def work(self) -> None:
        while True:
            await self.news.wait()
            while self.runs:
                run = self.runs.pop()  # the newest
                try:
                    await self._measure_run(run)
                except EngineDiedError:
                    log.warning("The model's process died while %s was audited; it is left out", run)
                except Exception as error:  # deleted meanwhile, damaged: the others are audited all the same
                    log.warning("The run %s is not audited: %s", run, error or type(error).__name__)
            self.news.clear()

    async def _measure_run(self, run: str) -> None:
        row, taken = self.desk.store.get(run), self.taken
        folder = self.desk.store.folder_of(row)
        start, spans = await asyncio.to_thread(_spans_of, folder)
        if start is None or not spans or row.model != self.desk.engine.about.name:
            return
        games = await asyncio.to_thread(read_games, folder)
        for span in random.Random(run).sample(spans, min(SPANS_OF_A_RUN, len(spans))):
            if self.taken > taken:  # a newer one goes first; this one's other spans after it
                if len(self.runs) < RUNS_WAITING:
                    self.runs.appendleft(run)
                return
            if not audit.path_of(folder, span.index).exists():
                one = await self._measure(row, start, span, games)
                self.desk.store.get(run)  # whoever deleted it meanwhile wants nothing written
                audit.save(one, folder)
                self._count(one.origin.run, one.score)

    async def _measure(self, row: Row, start: Start, span: SpanAttribution, games: Games) -> audit.Audited:
        about = self.desk.engine.about
        game = games.of([(span.start, span.end)])
        subsets = audit.draw(row.id, span.index, game.regions)
        falls, log_probs = [], []
        while (done := len(falls)) < len(subsets):
            some = [subset.nonzero()[:, 0].tolist() for subset in subsets[done : done + self.batch]]
            found = await self._measure_batch(
                folder=str(self.desk.store.folder_of(row)), images=row.images, messages=row.question["messages"],
                token_ids=list(row.token_ids[: span.end]), start=span.start, grids=start.regions, subsets=some,
                method=about.method,
            )  # fmt: skip
            falls += found["falls"]
            log_probs = found["log_probs"]
        log_probs = torch.tensor(log_probs)
        log_odds = log_probs - (-torch.expm1(log_probs)).clamp(min=torch.finfo(torch.float32).tiny).log()
        origin = audit.Origin(
            row.id, span.index, span.start, span.end, about.name, about.fingerprint, about.estimator or "", about.method,
            time.time(), row.question["messages"],
        )  # fmt: skip
        return audit.Audited(origin, game, subsets, torch.tensor(falls).T, log_odds)

    async def _measure_batch(self, **asked: Any) -> Any:
        """A few subsets, when it is nobody else's turn; then a rest, as long as the share of the time wants it."""
        ticket = self.desk.line.enter(CLIENT, patient=True)
        try:
            await ticket.turn()
            began = self.clock()
            found = await self.desk.engine.call("measure", **asked)
            took = self.clock() - began
        finally:
            ticket.leave()
        self.seconds += took
        self.desk.counters.audit_seconds.inc(took)
        passes = int(BATCH_S / max(took, 1e-6) * len(asked["subsets"]))
        self.batch = max(1, min(passes, 2 * self.batch, audit.SUBSETS))
        await self.sleep(took * (1 / self.share - 1))
        return found

    def _count(self, run: str, score: audit.Score) -> None:
        before = self.record.drifted
        self.record.add(run, score)
        if self.record.drifted and not before:
            log.warning("The estimator does not predict this model any more: %s", self.record.told())
        self.desk.counters.audit(self.record.told())

    def _remember(self) -> None:
        """Counts what an earlier server measured of the same model and estimator, oldest first."""
        about, known = self.desk.engine.about, []
        for row in self.desk.store.search("", RUNS_REMEMBERED, None)[0]:
            for path in (self.desk.store.folder_of(row) / audit.FOLDER).glob("span-*.safetensors"):
                with suppress(DataError):
                    origin, score = audit.read_score(path)
                    if (origin.fingerprint, origin.estimator) == (about.fingerprint, about.estimator):
                        known.append((origin.created, row.id, score))
        for _, run, score in sorted(known, key=lambda each: each[:2])[-audit.WINDOW :]:
            self._count(run, score)


def _spans_of(folder: Path) -> tuple[Start | None, list[SpanAttribution]]:
    """The start of a run, and its spans that an estimator attributed."""
    start, spans = None, []
    for event in events_so_far(folder):
        if isinstance(event, Start):
            start = event
        elif isinstance(event, SpanAttribution) and event.contributions is not None:
            spans.append(event)
    return start, spans


def auditing(share: float) -> Callable[[FastAPI, Desk], Any]:
    """What is open while an application is that audits for a share of the time."""

    @asynccontextmanager
    async def opened(app: FastAPI, desk: Desk) -> AsyncIterator[None]:
        desk.auditor = Auditor(desk, share)
        task = asyncio.create_task(desk.auditor.work(), name=CLIENT)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return opened
