"""Routes of the proxy: questions, which are followed, and everything else of the other server, which is not."""

import json
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from eyeline.proxy.forwarding import (
    Own,
    Pictures,
    UnfollowedError,
    followable,
    take_own,
    with_fixed_images,
)
from eyeline.proxy.proxy import Proxy
from eyeline.proxy.relay import Opening, Relay, Tee, whole
from eyeline.proxy.servers import Restorer
from eyeline.proxy.upstream import NOT_FORWARDED
from eyeline.server.response import unless_gone
from eyeline.server.routes.desk import WithBodies
from eyeline.server.routes.facts import model_entry

chat_router = APIRouter()  # before the server's own routes
rest_router = APIRouter()  # behind them
PLAIN = Own(events=False)
REFUSES_ADDITIONS = (400, 422)


def _proxy(request: Request) -> Proxy:
    return request.app.state.proxy


@chat_router.post("/v1/chat/completions")
async def chat(request: Request, bodies: WithBodies) -> Response:
    proxy = _proxy(request)
    async with bodies.read(request) as content:
        body = _object(content)
        return await unless_gone(_ask(proxy, request, body, content), request.receive) or Response(
            status_code=499
        )


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


async def _ask(proxy: Proxy, request: Request, body: dict[str, Any] | None, content: bytes) -> Response:
    """What the server answers, and its following where that can be."""
    own, opening, failure, added = PLAIN, None, None, frozenset[str]()
    plain = content  # as the client means it
    desk = proxy.desk
    if body is not None:
        if "eyeline" in body:
            own = take_own(body, events=not proxy.side_channel, save=proxy.save)
            plain = json.dumps(body).encode()
        else:
            own = Own(events=not proxy.side_channel, save=proxy.save)
        try:
            found = followable(body, proxy.upstream, desk.settings, own)
            pictures = Pictures(found.urls, desk)
            if proxy.forward == "fixed":
                body = await with_fixed_images(body, pictures)
            additions = proxy.upstream.kind.additions(body)
            plain, content = (json.dumps(each).encode() for each in (body, {**body, **additions}))
            added = frozenset(additions)
            run = desk.store.new_id()
            client = request.client.host if request.client else ""
            question = {"messages": found.messages, "options": found.options, "hidden": None}
            opening = Opening(run, question, pictures, found.prompt, client, own.save)
        except UnfollowedError as error:
            failure, content = str(error), plain
    leases = ExitStack()
    tee = Tee(desk, opening, failure, leases)
    try:
        answer = await proxy.send(request, content)
        if added and answer.status_code in REFUSES_ADDITIONS:  # by what we added, or by itself
            await answer.aclose()
            added = frozenset()
            answer = await proxy.send(request, plain)
    except BaseException:
        await tee.close()
        raise
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_FORWARDED}
    if opening is not None and answer.status_code == 200:
        headers["X-Eyeline-Run"] = opening.run
    shows = own.events and answer.status_code == 200
    restorer = Restorer(proxy.upstream.kind, added, shows)
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        return Relay(answer, headers, restorer, tee, shows=shows, linger=proxy.linger)

    async def close() -> None:
        await answer.aclose()
        await tee.close()
        leases.close()

    try:
        content = await proxy.read(answer)
        found = await whole(
            content, answer.status_code, headers, restorer, tee, shows=shows, linger=proxy.linger
        )
    except BaseException:
        await close()
        raise
    found.background = BackgroundTask(close)  # nothing of this keeps the client waiting
    return found


@chat_router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """The server's, and of the followed one what our own server says of its model."""
    proxy = _proxy(request)
    answer = await proxy.send(request, b"")
    content = await proxy.read(answer)
    listed = _object(content)
    if answer.status_code != 200 or listed is None or not isinstance(listed.get("data"), list):
        return Response(content, answer.status_code, media_type=answer.headers.get("content-type"))
    ours = model_entry(proxy.desk)["eyeline"]
    first = [{**each, "eyeline": ours} for each in listed["data"] if each.get("id") == proxy.upstream.model]
    others = [each for each in listed["data"] if each.get("id") != proxy.upstream.model]
    return JSONResponse({**listed, "data": [*first, *others]})


@rest_router.api_route(
    "/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False
)
async def pass_through(path: str, request: Request) -> Response:
    answer = await _proxy(request).send(request, request.stream())
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_FORWARDED}
    closing = BackgroundTask(answer.aclose)
    return StreamingResponse(answer.aiter_bytes(), answer.status_code, headers, background=closing)
