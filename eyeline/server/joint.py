"""What a run says of any regions and words, and where its evidence lies: no pass through the model, no place in the line."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from eyeline.boxes import Form, Of, as_json
from eyeline.errors import EyelineError, RegionError
from eyeline.events import Event
from eyeline.kept_games import Games, read_games
from eyeline.runs import events_so_far
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


async def tell_evidence(desk: Desk, row: Row, of: Of, form: Form) -> Any:
    """What `POST /v1/evidence` sends, of the events so far where the run is on. Raises a `RequestError`."""
    try:
        return await desk.read(row, lambda folder: as_json(list(events_so_far(folder)), of, form))
    except EyelineError as error:
        raise RequestError(
            400, "invalid_value", str(error), param="span" if isinstance(of, int) else "run"
        ) from error


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
        return await desk.read(
            row, lambda folder: asdict(of_saved(read_games(folder), list(events_so_far(folder))))
        )
    except (EyelineError, EngineRefusedError) as error:
        kind = getattr(error, "kind", type(error).__name__)
        param = params[0] if kind == RegionError.__name__ else params[1]
        raise RequestError(400, "invalid_value", str(error), param=param) from error
    except EngineDiedError as error:
        raise RequestError(503, "unavailable", "The model's process died; ask again in a moment.") from error


def _target(target: Any) -> Target:
    """As it is in Python: JSON has no tuples."""
    return tuple(target) if isinstance(target, list) else target
