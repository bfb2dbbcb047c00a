"""The application: one function a route, and `serve`, which runs it until it is told to stop."""

import asyncio
import errno
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

import eyeline
from eyeline.errors import DataError, EyelineError
from eyeline.events import Start, from_json
from eyeline.film import render_film
from eyeline.report import render_report
from eyeline.runs import EVENTS, read_run
from eyeline.server import gallery
from eyeline.server.asking import Asking, Desk
from eyeline.server.engine import Engine
from eyeline.server.joint import predict_joint
from eyeline.server.line import Line
from eyeline.server.metrics import Metrics
from eyeline.server.question import (
    AskWithoutRequest,
    ChatRequest,
    JointRequest,
    StreamOptions,
    VerifyRequest,
    parse,
)
from eyeline.server.request_error import RequestError, error_object, not_found
from eyeline.server.response import EventStream, as_sse, follow, gather, unless_gone
from eyeline.server.safety import Bodies, Guard, Settings, check_binding
from eyeline.server.store import Row, Store
from eyeline.server.verification import check_regions, check_same_model, read_span, verify, verify_together

OTHER_WAYS = ("/v1/responses", "/v1/completions")  # of asking, in OpenAI's API
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
REPORT_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; sandbox allow-scripts"
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "An error object",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "request_id"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }
    },
}


def _body(kind: type) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def create_app(settings: Settings, engine: Engine, store: Store) -> Guard:
    """The ASGI application for an engine that has started; it closes engine and store when it ends."""
    metrics = Metrics()
    bodies = Bodies(settings)
    line = Line(settings.queue)
    pages = _read_pages()
    desk: Desk

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal desk
        await engine.open()
        desk = app.state.desk = Desk(engine, store, line, settings, metrics)
        try:
            yield
        finally:
            await desk.stop()
            await engine.close()
            store.close()

    app = FastAPI(
        title="Eyeline",
        version=eyeline.__version__,
        lifespan=lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        responses=ERRORS,
    )

    # --- asking

    def client_of(request: Request) -> str:
        return request.client.host if request.client else ""

    def check_streams() -> None:
        if metrics.streams._value.get() >= settings.max_streams:
            raise RequestError(
                429, "queue_full", "Too many streams are open; close some.", headers={"Retry-After": "5"}
            )

    async def answer(
        asking: Asking, request: Request, stream: bool | None, options: StreamOptions | None, ids: bool | None
    ) -> Response:
        leases = ExitStack()
        leases.enter_context(desk.reading(asking))
        if stream:
            usage = options is not None and options.include_usage
            parts = follow(
                asking, request.state.request_id, settings.heartbeat, usage=usage, token_ids=bool(ids)
            )
            return EventStream(parts, leases, metrics)
        with leases:
            found = await unless_gone(gather(asking, token_ids=bool(ids)), request.receive)
        return JSONResponse(found) if found is not None else Response(status_code=499)

    @app.post("/v1/chat/completions", openapi_extra=_body(ChatRequest))
    async def chat(request: Request) -> Response:
        check_streams()
        desk.check_open()
        async with bodies.read(request) as body:
            asked = parse(ChatRequest, body)
            del body
            asking = await desk.ask(asked, client_of(request))
        return await answer(asking, request, asked.stream, asked.stream_options, asked.return_token_ids)

    @app.post("/v1/verify", openapi_extra=_body(VerifyRequest))
    async def verify_span(request: Request) -> Response:
        check_streams()
        line.check_room(patient=True)
        async with bodies.read(request) as body:
            asked = parse(VerifyRequest, body)
        row = desk.find(asked.run)
        start, span = read_span(desk, row, asked.span)
        check_same_model(desk, row)
        if asked.regions is not None:
            check_regions(start, asked.regions)
        leases = ExitStack()
        if (asking := desk.open.get(row.id)) is not None:
            leases.enter_context(desk.reading(asking, keeps=False))
        measure = verify_together if asked.together else verify
        events = measure(desk, row, start, span, asked.regions, client_of(request))
        return EventStream(as_sse(events, settings.heartbeat), leases, metrics)

    @app.post("/v1/joint", openapi_extra=_body(JointRequest))
    async def joint(request: Request) -> dict[str, Any]:
        async with bodies.read(request) as body:
            asked = parse(JointRequest, body)
        return await predict_joint(desk, desk.find(asked.run), asked.target, asked.regions)

    @app.post("/v1/ask-without", openapi_extra=_body(AskWithoutRequest))
    async def ask_without(request: Request) -> Response:
        check_streams()
        desk.check_open()
        async with bodies.read(request) as body:
            asked = parse(AskWithoutRequest, body)
        row = desk.find(asked.run)
        check_same_model(desk, row)
        start = await _start_of(row)
        check_regions(start, asked.regions)
        before = row.question["hidden"]
        hidden = {
            "run": row.id,
            "regions": sorted({*asked.regions, *(before["regions"] if before else ())}),
            "method": before["method"] if before else engine.about.method,
            "grids": start.regions,
        }
        saved = row.saved if asked.save is None else asked.save
        asking = await desk.ask_without(row, hidden, client_of(request), saved=saved)
        return await answer(asking, request, asked.stream, asked.stream_options, asked.return_token_ids)

    # --- runs

    async def _events_of(row: Row) -> list[dict[str, Any]]:
        path = store.folder_of(row) / EVENTS
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    async def _start_of(row: Row) -> Start:
        with (store.folder_of(row) / EVENTS).open("rb") as file:
            event = from_json(file.readline().decode() or "{}")
        if not isinstance(event, Start):
            raise DataError("The run has no start.")
        return event

    @app.get("/v1/runs")
    async def list_runs(
        query: Annotated[str, Query(max_length=1000)] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 20,
        before: str | None = None,
    ) -> dict[str, Any]:
        rows, following = store.search(query, limit, before)
        names = ("id", "created", "model", "prompt", "answer", "images", "reason")
        return {
            "runs": [{name: getattr(row, name) for name in names} for row in rows],
            "next": following,
        }

    @app.get("/v1/runs/{run}")
    async def get_run(run: str) -> dict[str, Any]:
        row = desk.find(run)
        hidden = row.question["hidden"]
        return {
            "id": row.id,
            "prompt": row.prompt,
            "model": row.model,
            "created": row.created,
            "reason": row.reason,
            "running": row.id in desk.open and not desk.open[row.id].over.is_set(),
            "hidden": hidden and {name: hidden[name] for name in ("run", "regions", "method")},
            "events": await _events_of(row),
            "images": [f"/v1/runs/{row.id}/images/{number}" for number in range(row.images)],
        }

    @app.delete("/v1/runs/{run}")
    async def delete_run(run: str) -> dict[str, Any]:
        row = desk.find(run)
        if row.id in desk.open:
            raise RequestError(
                409, "conflict", "The run is still being written or read; delete it afterwards."
            )
        store.discard(row.id)
        return {"id": row.id, "deleted": True}

    @app.get("/v1/runs/{run}/images/{number}", response_class=Response)
    async def get_image(run: str, number: int) -> Response:
        row = desk.find(run)
        if not 0 <= number < row.images:
            raise not_found("such image")
        path = store.folder_of(row) / f"image-{number}.png"
        return Response(await asyncio.to_thread(path.read_bytes), media_type="image/png")

    @app.get("/v1/runs/{run}/{name}", response_class=Response)
    async def download(run: str, name: str) -> Response:
        row = desk.find(run)
        folder = store.folder_of(row)
        writers = {
            "report.html": lambda: render_report(read_run(folder)).encode("utf-8", "replace"),
            "events.jsonl": (folder / EVENTS).read_bytes,
            "gaze.gif": lambda: render_film(read_run(folder)),
        }
        if name not in writers:
            raise not_found("such download")
        kinds = {"html": "text/html; charset=utf-8", "jsonl": "application/jsonl", "gif": "image/gif"}
        content = await asyncio.to_thread(writers[name])
        headers = {"Content-Disposition": f'attachment; filename="{row.id}-{name}"'}
        if name == "report.html":
            headers["Content-Security-Policy"] = REPORT_POLICY
        return Response(content, media_type=kinds[name.rpartition(".")[2]], headers=headers)

    # --- the rest

    def _model_entry() -> dict[str, Any]:
        about = engine.about
        return {
            "id": about.name,
            "object": "model",
            "created": 0,
            "owned_by": "eyeline",
            "eyeline": {
                "estimator": about.estimator,
                "unit": about.unit,
                "context": about.context,
                "max_tokens": settings.max_tokens,
                "method": about.method,
                "limits": {
                    "images": settings.max_images,
                    "pixels": settings.max_pixels,
                    "body": settings.max_body,
                },
            },
        }

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_entry()]}

    @app.get("/v1/models/{model:path}")
    async def get_model(model: str) -> dict[str, Any]:
        if model not in desk.names:
            raise RequestError(404, "model_not_found", f"Only {engine.about.name!r} is served here.")
        return _model_entry()

    @app.get("/v1/gallery")
    async def list_scenes() -> dict[str, Any]:
        found = await asyncio.to_thread(gallery.scenes)
        return {"scenes": list(found.values()), "notice": gallery.notice()}

    @app.get("/v1/gallery/{scene}.png", response_class=Response)
    async def get_scene(scene: str) -> Response:
        return Response(await asyncio.to_thread(gallery.draw_png, scene), media_type="image/png")

    @app.get("/healthz")
    async def health() -> Response:
        status = "stopping" if desk.stopping else "ok" if engine.ready.is_set() else "starting"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @app.get("/metrics", response_class=Response)
    async def show_metrics() -> Response:
        if (more := engine.restarts - int(metrics.restarts._value.get())) > 0:
            metrics.restarts.inc(more)
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _file("index.html")

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        return _file(name)

    def _file(name: str) -> Response:
        if name not in pages:
            raise not_found("such file")
        content, kind = pages[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    # --- errors and the API document

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        body = error_object(error, request.state.request_id)
        return JSONResponse(body, error.status, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            asked_otherwise = request.url.path.startswith(OTHER_WAYS)
            message = "Only chat completions are offered: send `messages` to POST /v1/chat/completions."
            missing = RequestError(404, "not_found", message) if asked_otherwise else not_found("such path")
            return await refused(request, missing)
        code = str(error.detail).lower().replace(" ", "_")
        message = f"{error.detail}: {request.method} is not what this path takes."
        refusal = RequestError(error.status_code, code, message, headers=dict(error.headers or {}))
        return await refused(request, refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"][1:])
        return await refused(
            request, RequestError(400, "invalid_value", f"{place}: {first['msg']}.", param=place)
        )

    @app.exception_handler(DataError)
    async def damaged(request: Request, error: DataError) -> Response:
        message = "The run is damaged, has not begun, or cannot be shown this way."
        return await refused(request, RequestError(409, "conflict", message))

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = FastAPI.openapi(app)
            kinds = [
                (kind, "validation") for kind in (ChatRequest, VerifyRequest, AskWithoutRequest, JointRequest)
            ]
            _, schemas = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # pyright: ignore
            components = document.setdefault("components", {}).setdefault("schemas", {})
            components |= {**schemas["$defs"], "Error": ERROR_SCHEMA}
            for unused in ("HTTPValidationError", "ValidationError"):
                components.pop(unused, None)
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi
    return Guard(app, settings, metrics)


def _read_pages() -> dict[str, tuple[bytes, str]]:
    """The page's files by name: what a request names is looked up here, not on disk."""
    folder = files("eyeline").joinpath("server", "static")
    return {
        file.name: (file.read_bytes(), kind)
        for file in folder.iterdir()
        if (kind := KINDS.get(Path(file.name).suffix)) is not None
    }


def serve(
    settings: Settings,
    model: str,
    estimator: str | Path | None = None,
    ready: Callable[[str], object] = lambda url: None,
) -> None:
    """Loads the model and serves until SIGINT or SIGTERM.

    Raises `EyelineError` for what cannot work, before the model is loaded where that can be known.
    """
    check_binding(settings)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("eyeline.server").setLevel(logging.INFO)
    with ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in bind(settings.host, settings.port)]
        store = Store(settings.data)
        stack.callback(store.close)
        engine = Engine(model, estimator)
        engine.start()
        app = create_app(settings, engine, store)
        config = uvicorn.Config(
            app,
            settings.host,
            settings.port,
            access_log=False,  # ours has request ids, and no query strings
            server_header=False,
            log_level="warning",
            timeout_graceful_shutdown=int(settings.grace) + 10,
            h11_max_incomplete_event_size=64 * 1024,
        )
        _Server(config, app.state, settings.grace, ready).run(sockets)


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of a host, which do not listen yet. Raises `EyelineError` where they cannot be had."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for number, (family, kind, protocol, _, address) in enumerate(found, start=1):
            try:
                sockets.append(_bind_one(socket.socket(family, kind, protocol), address))
            except OSError as error:
                absent = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
                if not absent or (
                    number == len(found) and not sockets
                ):  # a host's ::1 may be absent, not all it has
                    raise
    except OSError as error:
        for each in sockets:
            each.close()
        raise _cannot_listen(host, port, error) from error
    return sockets


def _bind_one(one: socket.socket, address: Any) -> socket.socket:
    try:
        if os.name == "posix":  # elsewhere it would share the port with whoever has it
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def _cannot_listen(host: str, port: int, error: OSError) -> EyelineError:
    if error.errno == errno.EADDRINUSE:
        why = f"Port {port} of {host} is taken, perhaps by another server; end that one, or give another --port."
    elif error.errno == errno.EACCES:
        why = f"Port {port} may not be used by this user; give a --port from 1024 on."
    else:
        why = f"{host!r} is no address of this machine ({error.strerror}); give another --host."
    return EyelineError(why)


class _Server(uvicorn.Server):
    """Gives those who wait and those who are served some time when it is told to stop."""

    def __init__(
        self, config: uvicorn.Config, state: Any, grace: float, ready: Callable[[str], object]
    ) -> None:
        super().__init__(config)
        self.state, self.grace, self.ready = state, grace, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        try:
            await super().startup(sockets)
        except OSError as error:  # another server began to listen while the model was loaded
            await self.lifespan.shutdown()
            raise _cannot_listen(self.config.host, self.config.port, error) from error
        if self.started:
            host = self.config.host
            self.ready(f"http://{f'[{host}]' if ':' in host else host}:{self.config.port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self.loop.call_soon_threadsafe(self._begin_to_stop)
        super().handle_exit(sig, frame)

    def _begin_to_stop(self) -> None:
        desk: Desk = self.state.desk
        desk.stopping = True
        self._ending = asyncio.create_task(self._end_later(desk))

    async def _end_later(self, desk: Desk) -> None:
        await asyncio.sleep(self.grace)
        await desk.stop()
