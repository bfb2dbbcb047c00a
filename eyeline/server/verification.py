"""What is measured of a run behind all questions: the real ablation of a span, its contrast with other words, thinking again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from eyeline.errors import EyelineError
from eyeline.events import SpanAttribution, Start
from eyeline.kept_games import read_games
from eyeline.runs import events_so_far
from eyeline.server.asking import Desk
from eyeline.server.engine import EngineDiedError, EngineRefusedError
from eyeline.server.request_error import RequestError, not_found
from eyeline.server.store import Row

log = logging.getLogger("eyeline.server")
AT_ONCE = 4  # regions between two looks at whether a question waits


def rank_agreement(predicted: Sequence[float], actual: Sequence[float]) -> float | None:
    """Spearman's correlation; None under three regions, or where one side is constant."""
    if len(predicted) < 3 or len(set(predicted)) == 1 or len(set(actual)) == 1:
        return None
    found: Any = spearmanr(predicted, actual)
    return round(float(found.statistic), 4)


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
    already, method = _hidden_already(desk, row)
    wanted = list(dict.fromkeys(range(len(span.effects)) if regions is None else regions))
    if regions is None:
        wanted.sort(key=lambda region: -abs(span.effects[region]))
    predicted: list[float] = []
    actual: list[float] = []
    for first in range(0, len(wanted), AT_ONCE):
        some = wanted[first : first + AT_ONCE]
        subsets = [already, *([*already, region] for region in some)]
        ticket = desk.line.enter(client, patient=True)
        try:
            if not ticket.called.done():
                yield {"event": "waiting"}
            await ticket.turn()
            found = await _ablate(desk, row, start, span, subsets, method)
        finally:
            ticket.leave()
        base, *falls = found["falls"]
        if not first:
            log_prob = found["log_prob"] - (base if already else 0)
            yield {"event": "baseline", "log_prob": log_prob, "method": method, "total": len(wanted)}
        for region, fall in zip(some, falls, strict=True):
            predicted.append(span.effects[region])
            actual.append(fall - (base if already else 0))
            yield {
                "event": "region",
                "region": region,
                "predicted": predicted[-1],
                "actual": actual[-1],
                "rank_agreement": rank_agreement(predicted, actual),
                "done": len(actual),
                "total": len(wanted),
            }
    agreement = rank_agreement(predicted, actual)
    yield {"event": "done", "rank_agreement": agreement, "done": len(actual), "total": len(wanted)}


async def verify_together(
    desk: Desk, row: Row, start: Start, span: SpanAttribution, regions: Sequence[int] | None, client: str
) -> AsyncIterator[dict[str, Any]]:
    """The same with all the regions hidden in one pass, beside their predicted joint fall."""
    async for _ in desk.finished(row.id):
        yield {"event": "waiting"}
    row = desk.store.get(row.id)
    already, method = _hidden_already(desk, row)
    wanted = list(dict.fromkeys(range(len(span.effects)) if regions is None else regions))
    games = await asyncio.to_thread(read_games, desk.store.folder_of(row))
    predicted = games.joint([(span.start, span.end)], wanted)
    ticket = desk.line.enter(client, patient=True)
    try:
        if not ticket.called.done():
            yield {"event": "waiting"}
        await ticket.turn()
        found = await _ablate(desk, row, start, span, [already, [*already, *wanted]], method)
    finally:
        ticket.leave()
    base, fall = found["falls"]
    base = base if already else 0
    yield {"event": "baseline", "log_prob": found["log_prob"] - base, "method": method, "total": 1}
    yield {
        "event": "together", "regions": wanted, "predicted": predicted.fall, "parts": predicted.parts,
        "actual": fall - base, "done": 1, "total": 1,
    }  # fmt: skip
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


def _hidden_already(desk: Desk, row: Row) -> tuple[list[int], str]:
    """The regions that a run was asked without, and the way of hiding."""
    hidden = row.question["hidden"] or {"regions": [], "method": desk.engine.about.method}
    return list(hidden["regions"]), hidden["method"]


async def _ablate(
    desk: Desk, row: Row, start: Start, span: SpanAttribution, subsets: Sequence[Sequence[int]], method: str
) -> Any:
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
    return found and {"log_prob": sum(found["log_probs"]), "falls": [sum(each) for each in found["falls"]]}
