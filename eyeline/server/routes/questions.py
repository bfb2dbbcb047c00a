"""Routes that ask the model, and what a run's owner asks about it afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from eyeline.errors import DataError
from eyeline.events import Start
from eyeline.runs import events_so_far
from eyeline.server.asking import Asking, Desk
from eyeline.server.joint import predict_joint, predict_rests_on, tell_evidence
from eyeline.server.request import (
    AskWithoutRequest,
    ChatRequest,
    ContrastRequest,
    EvidenceRequest,
    JointRequest,
    RestsOnRequest,
    RethinkRequest,
    VerifyRequest,
    parse,
)
from eyeline.server.request_error import RequestError
from eyeline.server.response import EventStream, Wanted, as_sse, follow, gather, unless_gone
from eyeline.server.routes.desk import AtDesk, WithBodies
from eyeline.server.store import Row
from eyeline.server.verification import (
    check_regions,
    check_same_model,
    contrast,
    or_error,
    read_span,
    rethink,
    verify,
    verify_together,
)

router = APIRouter()


def _body(kind: type) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _client_of(request: Request) -> str:
    return request.client.host if request.client else ""


def _check_streams(desk: Desk) -> None:
    if desk.counters.streams._value.get() >= desk.settings.max_streams:
        raise RequestError(
            429, "queue_full", "Too many streams are open; close some.", headers={"Retry-After": "5"}
        )


async def _answer(
    desk: Desk, asking: Asking, request: Request, asked: ChatRequest | AskWithoutRequest
) -> Response:
    leases = ExitStack()
    leases.enter_context(desk.reading(asking))
    wanted = Wanted(bool(asked.return_token_ids), isinstance(asked, ChatRequest) and bool(asked.logprobs))
    if asked.stream:
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        parts = follow(asking, request.state.request_id, desk.settings.heartbeat, usage=usage, wanted=wanted)
        return EventStream(parts, leases, desk.counters)
    with leases:
        found = await unless_gone(gather(asking, wanted), request.receive)
    return Response(status_code=499) if found is None else await asyncio.to_thread(JSONResponse, found)


@router.post("/v1/chat/completions", openapi_extra=_body(ChatRequest))
async def chat(request: Request, desk: AtDesk, bodies: WithBodies) -> Response:
    _check_streams(desk)
    desk.check_open()
    async with bodies.read(request) as body:
        asked = parse(ChatRequest, body)
        del body
        asking = await desk.ask(asked, _client_of(request))
    return await _answer(desk, asking, request, asked)


@router.post("/v1/verify", openapi_extra=_body(VerifyRequest))
async def verify_span(request: Request, desk: AtDesk, bodies: WithBodies) -> Response:
    _check_streams(desk)
    desk.line.check_room(patient=True)
    async with bodies.read(request) as body:
        asked = parse(VerifyRequest, body)
    row = desk.find(asked.run)
    start, span = await desk.read(row, partial(read_span, asked.span))
    check_same_model(desk, row)
    if asked.regions is not None:
        check_regions(start, asked.regions)
    measure = verify_together if asked.together else verify
    events = measure(desk, row, start, span, asked.regions, _client_of(request))
    return _of_run(desk, row, events)


@router.post("/v1/rethink", openapi_extra=_body(RethinkRequest))
async def rethink_run(request: Request, desk: AtDesk, bodies: WithBodies) -> Response:
    _check_streams(desk)
    desk.line.check_room(patient=True)
    async with bodies.read(request) as body:
        asked = parse(RethinkRequest, body)
    row = desk.find(asked.run)
    check_same_model(desk, row)
    check_regions(await desk.read(row, _start_of), asked.regions)
    events = rethink(desk, row, asked.regions, asked.samples, _client_of(request))
    return _of_run(desk, row, events)


@router.post("/v1/contrast", openapi_extra=_body(ContrastRequest))
async def contrast_span(request: Request, desk: AtDesk, bodies: WithBodies) -> Response:
    _check_streams(desk)
    desk.line.check_room(patient=True)
    async with bodies.read(request) as body:
        asked = parse(ContrastRequest, body)
    row = desk.find(asked.run)
    await desk.read(row, partial(read_span, asked.span))
    check_same_model(desk, row)
    events = contrast(desk, row, asked.span, asked.instead, asked.words, _client_of(request))
    return _of_run(desk, row, events)


@router.post("/v1/joint", openapi_extra=_body(JointRequest))
async def joint(request: Request, desk: AtDesk, bodies: WithBodies) -> dict[str, Any]:
    async with bodies.read(request) as body:
        asked = parse(JointRequest, body)
    return await predict_joint(desk, desk.find(asked.run), asked.target, asked.regions)


@router.post("/v1/rests-on", openapi_extra=_body(RestsOnRequest))
async def rests_on(request: Request, desk: AtDesk, bodies: WithBodies) -> dict[str, Any]:
    async with bodies.read(request) as body:
        asked = parse(RestsOnRequest, body)
    return await predict_rests_on(desk, desk.find(asked.run), asked.sets)


@router.post("/v1/evidence", openapi_extra=_body(EvidenceRequest))
async def evidence(request: Request, desk: AtDesk, bodies: WithBodies) -> Response:
    async with bodies.read(request) as body:
        asked = parse(EvidenceRequest, body)
    if asked.span is not None and asked.answer:
        raise RequestError(
            400, "invalid_value", "Give one of `span` and `answer`, or neither.", param="answer"
        )
    of = "answer" if asked.answer else asked.span
    return JSONResponse(await tell_evidence(desk, desk.find(asked.run), of, asked.form))


@router.post("/v1/ask-without", openapi_extra=_body(AskWithoutRequest))
async def ask_without(request: Request, desk: AtDesk, bodies: WithBodies) -> Response:
    _check_streams(desk)
    desk.check_open()
    async with bodies.read(request) as body:
        asked = parse(AskWithoutRequest, body)
    row = desk.find(asked.run)
    check_same_model(desk, row)
    start = await desk.read(row, _start_of)
    check_regions(start, asked.regions)
    before = row.question["hidden"]
    hidden = {
        "run": row.id,
        "regions": sorted({*asked.regions, *(before["regions"] if before else ())}),
        "method": before["method"] if before else desk.engine.about.method,
        "grids": start.regions,
    }
    saved = row.saved if asked.save is None else asked.save
    asking = await desk.ask_without(row, hidden, _client_of(request), saved=saved)
    return await _answer(desk, asking, request, asked)


def _start_of(folder: Path) -> Start:
    event = next(events_so_far(folder), None)
    if not isinstance(event, Start):
        raise DataError("The run has no start.")
    return event


def _of_run(desk: Desk, row: Row, events: AsyncIterator[dict[str, Any]]) -> EventStream:
    """Events about a saved run; while its own question is on, that counts as read."""
    _check_streams(desk)  # others may have been opened since
    leases = ExitStack()
    if (asking := desk.open.get(row.id)) is not None:
        leases.enter_context(desk.reading(asking, keeps=False))
    return EventStream(as_sse(or_error(events), desk.settings.heartbeat), leases, desk.counters)
