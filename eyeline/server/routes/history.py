"""Routes to the runs that are kept: their list, each of them, their images and downloads."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from eyeline.claims import as_shares
from eyeline.events import from_json
from eyeline.film import render_film
from eyeline.report import render_report
from eyeline.runs import read_run, whole_lines
from eyeline.server.request_error import RequestError, not_found
from eyeline.server.routes.desk import AtDesk
from eyeline.server.store import Row

REPORT_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; sandbox allow-scripts"

router = APIRouter()


def _read(row: Row, running: bool, folder: Path) -> Response:
    """The run with its events so far, which are JSON already: to write many megabytes of it anew would hold up all else."""
    hidden = row.question["hidden"]
    lines = list(whole_lines(folder))
    about = {
        "id": row.id,
        "prompt": row.prompt,
        "model": row.model,
        "created": row.created,
        "reason": row.reason,
        "running": running,
        "hidden": hidden and {name: hidden[name] for name in ("run", "regions", "method")},
        "claims": as_shares(
            from_json(line) for line in lines if json.loads(line)["event"] in ("start", "text")
        ),
        "images": [f"/v1/runs/{row.id}/images/{number}" for number in range(row.images)],
    }
    content = f'{json.dumps(about)[:-1]}, "events": [{", ".join(lines)}]}}'
    return Response(content, media_type="application/json")


@router.get("/v1/runs")
async def list_runs(
    desk: AtDesk,
    query: Annotated[str, Query(max_length=1000)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    before: str | None = None,
) -> dict[str, Any]:
    rows, following = desk.store.search(query, limit, before)
    names = ("id", "created", "model", "prompt", "answer", "images", "reason")
    return {
        "runs": [{name: getattr(row, name) for name in names} for row in rows],
        "next": following,
    }


@router.get("/v1/runs/{run}")
async def get_run(run: str, desk: AtDesk) -> Response:
    row = desk.find(run)
    running = row.id in desk.open and not desk.open[row.id].over.is_set()  # before its events are read
    return await desk.read(row, partial(_read, row, running))


@router.delete("/v1/runs/{run}")
async def delete_run(run: str, desk: AtDesk) -> dict[str, Any]:
    row = desk.find(run)
    if row.id in desk.open:
        raise RequestError(409, "conflict", "The run is still being written or read; delete it afterwards.")
    desk.store.discard(row.id)
    return {"id": row.id, "deleted": True}


@router.get("/v1/runs/{run}/images/{number}", response_class=Response)
async def get_image(run: str, number: int, desk: AtDesk) -> Response:
    row = desk.find(run)
    if not 0 <= number < row.images:
        raise not_found("such image")
    content = await desk.read(row, lambda folder: (folder / f"image-{number}.png").read_bytes())
    return Response(content, media_type="image/png")


@router.get("/v1/runs/{run}/{name}", response_class=Response)
async def download(run: str, name: str, desk: AtDesk) -> Response:
    row = desk.find(run)
    writers: dict[str, Callable[[Path], bytes]] = {
        "report.html": lambda folder: render_report(read_run(folder)).encode("utf-8", "replace"),
        "events.jsonl": lambda folder: "".join(whole_lines(folder)).encode(),
        "gaze.gif": lambda folder: render_film(read_run(folder)),
    }
    if name not in writers:
        raise not_found("such download")
    kinds = {"html": "text/html; charset=utf-8", "jsonl": "application/jsonl", "gif": "image/gif"}
    content = await desk.read(row, writers[name])
    headers = {"Content-Disposition": f'attachment; filename="{row.id}-{name}"'}
    if name == "report.html":
        headers["Content-Security-Policy"] = REPORT_POLICY
    return Response(content, media_type=kinds[name.rpartition(".")[2]], headers=headers)
