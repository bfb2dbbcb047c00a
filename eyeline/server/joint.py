"""What hiding regions together would do to some words of a run, predicted: no pass through the model, no place in the line."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from eyeline.errors import EyelineError, RegionError
from eyeline.events import from_json
from eyeline.kept_games import read_games
from eyeline.runs import EVENTS
from eyeline.server.asking import Desk
from eyeline.server.engine import EngineDiedError, EngineRefusedError
from eyeline.server.request_error import RequestError
from eyeline.server.store import Row
from eyeline.targets import Target, tokens_of


async def predict_joint(desk: Desk, row: Row, target: Target, regions: Sequence[int]) -> dict[str, Any]:
    """What `POST /v1/joint` sends: of a run that is over from what it keeps, of one that is on from the model's process.

    Raises a `RequestError`.
    """
    asking = desk.open.get(row.id)
    try:
        if asking is not None and not asking.over.is_set():
            return dict(await desk.engine.call("joint", of=asking.job, target=target, regions=list(regions)))
        return await asyncio.to_thread(_of_saved, desk, row, target, regions)
    except (EyelineError, EngineRefusedError) as error:
        kind = getattr(error, "kind", type(error).__name__)
        param = "regions" if kind == RegionError.__name__ else "target"
        raise RequestError(400, "invalid_value", str(error), param=param) from error
    except EngineDiedError as error:
        raise RequestError(503, "unavailable", "The model's process died; ask again in a moment.") from error


def _of_saved(desk: Desk, row: Row, target: Target, regions: Sequence[int]) -> dict[str, Any]:
    folder = desk.store.folder_of(row)
    events = [from_json(line) for line in (folder / EVENTS).read_text(encoding="utf-8").split("\n") if line]
    return asdict(read_games(folder).joint(tokens_of(_target(target), events), regions))


def _target(target: Any) -> Target:
    """As it is in Python: JSON has no tuples."""
    return tuple(target) if isinstance(target, list) else target
