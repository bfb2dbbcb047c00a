"""Routes that tell what is served and how the server fares."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from eyeline.familiar import READS, familiar_of
from eyeline.server import gallery
from eyeline.server.asking import Desk
from eyeline.server.request_error import RequestError
from eyeline.server.routes.desk import AtDesk

router = APIRouter()


def model_entry(desk: Desk) -> dict[str, Any]:
    about = desk.engine.about
    return {
        "id": about.name,
        "object": "model",
        "created": 0,
        "owned_by": "eyeline",
        "eyeline": {
            "estimator": about.estimator,
            "unit": about.unit,
            "context": about.context,
            "max_tokens": desk.settings.max_tokens,
            "method": about.method,
            "reads": READS if familiar_of(about.name) else None,
            "limits": {
                "images": desk.settings.max_images,
                "pixels": desk.settings.max_pixels,
                "body": desk.settings.max_body,
            },
        },
    }


@router.get("/v1/models")
async def list_models(desk: AtDesk) -> dict[str, Any]:
    return {"object": "list", "data": [model_entry(desk)]}


@router.get("/v1/models/{model:path}")
async def get_model(model: str, desk: AtDesk) -> dict[str, Any]:
    if model not in desk.names:
        raise RequestError(404, "model_not_found", f"Only {desk.engine.about.name!r} is served here.")
    return model_entry(desk)


@router.get("/v1/gallery")
async def list_scenes() -> dict[str, Any]:
    found = await asyncio.to_thread(gallery.scenes)
    return {"scenes": list(found.values()), "notice": gallery.notice()}


@router.get("/v1/gallery/{scene}.png", response_class=Response)
async def get_scene(scene: str) -> Response:
    return Response(await asyncio.to_thread(gallery.draw_png, scene), media_type="image/png")


@router.get("/v1/audit")
async def show_audit(desk: AtDesk) -> dict[str, Any]:
    return {"on": False} if desk.auditor is None else desk.auditor.told()


@router.get("/healthz")
async def health(desk: AtDesk) -> Response:
    status = "stopping" if desk.stopping else "ok" if desk.engine.alive else "starting"
    return JSONResponse({"status": status}, 200 if status == "ok" else 503)


@router.get("/metrics", response_class=Response)
async def show_metrics(desk: AtDesk) -> Response:
    if (more := desk.engine.restarts - int(desk.counters.restarts._value.get())) > 0:
        desk.counters.restarts.inc(more)
    return Response(desk.counters.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
