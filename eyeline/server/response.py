"""Streams of server-sent events that end as soon as their client is gone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eyeline.runs import whole_lines
from eyeline.server.asking import Asking
from eyeline.server.chunks import comment, sse
from eyeline.server.counters import Counters
from eyeline.server.request_error import RequestError, error_object


class EventStream(Response):
    """Sends what an iterator yields, and closes it when the client goes away; then leaves `leases`."""

    def __init__(self, parts: AsyncIterator[bytes], leases: ExitStack, counters: Counters) -> None:
        super().__init__(media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.parts, self.leases, self.counters = parts, leases, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.leases, self.counters.streams.track_inprogress():
            sending = asyncio.create_task(self._send(send))
            listening = asyncio.create_task(wait_until_gone(receive))
            try:
                await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, listening):
                    task.cancel()
                await asyncio.wait({sending, listening})
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self.parts) as parts:  # pyright: ignore
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked to be told of tokens."""

    ids: bool = False  # as vLLM says them
    log_probs: bool = False

    def of_prompt(self, asking: Asking) -> dict[str, Any]:
        return {"prompt_token_ids": list(asking.prompt_token_ids)} if self.ids else {}

    def of_choice(self, asking: Asking, start: int, end: int | None) -> dict[str, Any]:
        fields: dict[str, Any] = {"token_ids": asking.token_ids[start:end]} if self.ids else {}
        entries = asking.log_probs[start:end] if self.log_probs else ()
        return {**fields, "logprobs": {"content": entries, "refusal": None} if entries else None}


async def follow(
    asking: Asking, request_id: str, heartbeat: float, *, usage: bool, wanted: Wanted
) -> AsyncIterator[bytes]:
    """A question's chunks, as they come; those of texts tell of the tokens up to their end."""
    envelope = replace(asking.envelope, has_usage=usage)
    yield comment("hello")  # the headers, at once
    told = 0  # tokens
    async for line in asking.log.follow(heartbeat):
        if line:
            event = json.loads(line)
            end = event["end"] if event["event"] == "text" else told
            chunk = envelope.event(event, **wanted.of_choice(asking, told, end))
            yield sse(chunk | wanted.of_prompt(asking) if event["event"] == "start" else chunk)
            told = end
        else:
            yield comment("" if asking.running else f"waiting, {asking.ticket.before} before you")
    await asking.over.wait()
    try:
        done = asking.whole()
    except RequestError as refusal:
        yield sse(error_object(refusal, request_id))
        return
    yield sse(envelope.last(done, **wanted.of_choice(asking, told, None)))
    if usage:
        yield sse(envelope.usage(done))
    yield b"data: [DONE]\n\n"


async def gather(asking: Asking, wanted: Wanted) -> dict[str, Any]:
    """A question's completion, when it is over. Raises a `RequestError` where it is not whole."""
    await asking.over.wait()
    asking.whole()
    return await asyncio.to_thread(_completion, asking, wanted)


def _completion(asking: Asking, wanted: Wanted) -> dict[str, Any]:
    lines = list(whole_lines(asking.log.path.parent))
    return asking.envelope.completion(lines, **wanted.of_choice(asking, 0, None)) | wanted.of_prompt(asking)


async def unless_gone(work: Any, receive: Receive) -> Any:
    """The result of `work`, which is cancelled when the client goes away; then None."""
    working = asyncio.ensure_future(work)
    listening = asyncio.create_task(wait_until_gone(receive))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, listening):
            task.cancel()
        await asyncio.wait({working, listening})


async def as_sse(events: AsyncIterator[dict[str, Any]], heartbeat: float) -> AsyncIterator[bytes]:
    """Any events, with a comment whenever none came for a while."""
    yield comment("hello")
    async with aclosing(events) as some:  # pyright: ignore
        following = asyncio.ensure_future(anext(some, None))
        try:
            while True:
                await asyncio.wait({following}, timeout=heartbeat)
                if not following.done():
                    yield comment()
                    continue
                if (event := following.result()) is None:
                    return
                yield sse(event)
                following = asyncio.ensure_future(anext(some, None))
        finally:
            following.cancel()
            await asyncio.wait({following})
