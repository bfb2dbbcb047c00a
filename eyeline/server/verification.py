"""What is measured of a run behind all questions: the real ablation of a span, its contrast with other words, thinking again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from eyeline.errors import EyelineError
from eyeline.events import SpanAttribution, Start
from eyeline.kept_games import read_games
from eyeline.runs import events_so_far
from eyeline.server.asking import Desk
from eyeline.server.engine import EngineDiedError, EngineRefusedError
from eyeline.server.request_error import RequestError, not_found
from eyeline.server.store import Row
from eyeline.span_check import Fallen, SpanCheck

log = logging.getLogger("eyeline.server")


def read_span(index: int, folder: Path) -> tuple[Start, SpanAttribution]:
    """A span of a run, as far as it is written. Raises a `RequestError`."""
    start = None
    for event in events_so_far(folder):
        if isinstance(event, Start):
            start = event
        elif isinstance(event, SpanAttribution) and event.index == index and start is not None:
            return start, event
    raise not_found(f"span {index} in the run")


def check_same_model(desk: Desk, row: Row) -> None:
    if row.model != desk.engine.about.name:
        raise RequestError(
            409,
            "conflict",
            f"The run was made with {row.model!r}; start the server with that model to measure it.",
        )


def check_regions(start: Start, regions: Sequence[int]) -> None:
    count = 1 + max((label for grid in start.regions for cells in grid for label in cells), default=-1)
    if not all(region < count for region in regions):
        raise RequestError(
            400,
            "invalid_value",
            f"The run has {count} regions; expected numbers from 0 to {count - 1}.",
            param="regions",
        )


async def verify(
    desk: Desk, row: Row, start: Start, span: SpanAttribution, regions: Sequence[int] | None, client: str
) -> AsyncIterator[dict[str, Any]]:
    """What `POST /v1/verify` sends; None of it is kept."""
    async for _ in desk.finished(row.id):
        yield {"event": "waiting"}
    row = desk.store.get(row.id)
    check = _check_of(desk, row, span, regions)
    for subsets in check.batches():
        ticket = desk.line.enter(client, patient=True)
        try:
            if not ticket.called.done():
                yield {"event": "waiting"}
            await ticket.turn()
            found = await _ablate(desk, row, start, span, subsets, check.method)
        finally:
            ticket.leave()
        for event in check.take(found):
            yield event
    yield check.done()


async def verify_together(
    desk: Desk, row: Row, start: Start, span: SpanAttribution, regions: Sequence[int] | None, client: str
) -> AsyncIterator[dict[str, Any]]:
    """The same with all the regions hidden in one pass, beside their predicted joint fall."""
    async for _ in desk.finished(row.id):
        yield {"event": "waiting"}
    row = desk.store.get(row.id)
    check = _check_of(desk, row, span, regions)
    games = await asyncio.to_thread(read_games, desk.store.folder_of(row))
    predicted = games.joint([(span.start, span.end)], check.wanted)
    ticket = desk.line.enter(client, patient=True)
    try:
        if not ticket.called.done():
            yield {"event": "waiting"}
        await ticket.turn()
        subsets = [[*check.already], [*check.already, *check.wanted]]
        found = await _ablate(desk, row, start, span, subsets, check.method)
    finally:
        ticket.leave()
    yield check.baseline(found, total=1)
    yield check.together(found, predicted.fall, predicted.parts)
    yield {"event": "done", "rank_agreement": None, "done": 1, "total": 1}


async def rethink(
    desk: Desk, row: Row, regions: Sequence[int], samples: int | None, client: str
) -> AsyncIterator[dict[str, Any]]:
    """What `POST /v1/rethink` sends; none of it is kept."""
    async for event in _measured(desk, row, client, "rethink", "rethought", regions=regions, samples=samples):
        yield event


async def contrast(
    desk: Desk, row: Row, span: int, instead: str, words: str | None, client: str
) -> AsyncIterator[dict[str, Any]]:
    """What `POST /v1/contrast` sends; none of it is kept."""
    asked = {"span": span, "instead": instead, "words": words}
    async for event in _measured(desk, row, client, "contrast", "contrast", **asked):
        yield event


async def _measured(
    desk: Desk, row: Row, client: str, op: str, name: str, **asked: Any
) -> AsyncIterator[dict[str, Any]]:
    """A job of the model's process about a finished run, behind all questions; its result is one event of this `name`."""
    async for _ in desk.finished(row.id):
        yield {"event": "waiting"}
    row = desk.store.get(row.id)
    ticket = desk.line.enter(client, patient=True)
    try:
        if not ticket.called.done():
            yield {"event": "waiting"}
        await ticket.turn()
        found = await desk.engine.call(
            op, folder=str(desk.store.folder_of(row)), messages=row.question["messages"],
            hidden=row.question["hidden"], **asked,
        )  # fmt: skip
    finally:
        ticket.leave()
    yield {"event": name, **found}
    yield {"event": "done"}


async def or_error(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """The same events; what goes wrong, in whatever way, is the last one: a status cannot be sent any more."""
    try:
        async with aclosing(events) as some:  # pyright: ignore
            async for event in some:
                yield event
    except (EyelineError, RequestError) as error:
        yield {"event": "error", "message": str(error)}
    except EngineDiedError:
        yield {"event": "error", "message": "The model's process died while it measured; try once more."}
    except Exception as error:
        log.exception("Measuring failed")
        yield {"event": "error", "message": f"Measuring failed: {type(error).__name__}."}


def _check_of(desk: Desk, row: Row, span: SpanAttribution, regions: Sequence[int] | None) -> SpanCheck:
    """Of a run, hidden as it was asked, beside what it was asked without."""
    hidden = row.question["hidden"] or {"regions": [], "method": desk.engine.about.method}
    return SpanCheck(span, hidden["method"], regions, hidden["regions"])


async def _ablate(
    desk: Desk, row: Row, start: Start, span: SpanAttribution, subsets: Sequence[Sequence[int]], method: str
) -> Fallen:
    """Log-prob of a span with nothing hidden, and its fall with each subset hidden.

    Raises `EngineRefusedError` where its ids were not kept.
    """
    if span.end > len(row.token_ids):
        raise EngineRefusedError("The run was cut short: the token ids of this span were not kept.", "")
    found = await desk.engine.call(
        "measure",
        folder=str(desk.store.folder_of(row)),
        images=row.images,
        messages=row.question["messages"],
        token_ids=list(row.token_ids[: span.end]),
        start=span.start,
        grids=start.regions,
        subsets=subsets,
        method=method,
    )
    return Fallen(sum(found["log_probs"]), tuple(sum(each) for each in found["falls"]))
