"""What hiding regions would do to words of a run or to its answer, predicted: no pass through the model, no place in the line."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from eyeline.errors import EyelineError, RegionError
from eyeline.events import Event, from_json
from eyeline.kept_games import Games, read_games
from eyeline.runs import EVENTS
from eyeline.server.asking import Desk
from eyeline.server.engine import EngineDiedError, EngineRefusedError
from eyeline.server.request_error import RequestError
from eyeline.server.store import Row
from eyeline.targets import Target, answer_ranges, tokens_of


async def predict_joint(desk: Desk, row: Row, target: Target, regions: Sequence[int]) -> dict[str, Any]:
    """What `POST /v1/joint` sends. Raises a `RequestError`."""

    def of_saved(games: Games, events: Sequence[Event]) -> Any:
        return games.joint(tokens_of(_target(target), events), regions)

    asked = {"target": target, "regions": list(regions)}
    return await _predict(desk, row, "joint", asked, of_saved, ("regions", "target"))


async def predict_rests_on(desk: Desk, row: Row, sets: Sequence[Sequence[int]] | None) -> dict[str, Any]:
    """What `POST /v1/rests-on` sends. Raises a `RequestError`."""

    def of_saved(games: Games, events: Sequence[Event]) -> Any:
        return games.rests_on(answer_ranges(events), sets)

    found = await _predict(desk, row, "rests_on", {"sets": sets}, of_saved, ("sets", "run"))
    return {"sets": sets, **found}


async def _predict(
    desk: Desk,
    row: Row,
    op: str,
    asked: dict[str, Any],
    of_saved: Callable[[Games, Sequence[Event]], Any],
    params: tuple[str, str],
) -> dict[str, Any]:
    """Of a run that is over from what it keeps, of one that is on from the model's process.

    `params` are the fields to blame for a region that is none, and for all else.
    """
    asking = desk.open.get(row.id)
    try:
        if asking is not None and not asking.over.is_set():
            return dict(await desk.engine.call(op, of=asking.job, **asked))
        return await asyncio.to_thread(lambda: asdict(of_saved(*_read(desk, row))))
    except (EyelineError, EngineRefusedError) as error:
        kind = getattr(error, "kind", type(error).__name__)
        param = params[0] if kind == RegionError.__name__ else params[1]
        raise RequestError(400, "invalid_value", str(error), param=param) from error
    except EngineDiedError as error:
        raise RequestError(503, "unavailable", "The model's process died; ask again in a moment.") from error


def _read(desk: Desk, row: Row) -> tuple[Games, list[Event]]:
    folder = desk.store.folder_of(row)
    events = [from_json(line) for line in (folder / EVENTS).read_text(encoding="utf-8").split("\n") if line]
    return read_games(folder), events


def _target(target: Any) -> Target:
    """As it is in Python: JSON has no tuples."""
    return tuple(target) if isinstance(target, list) else target
