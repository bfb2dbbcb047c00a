"""What the other server sends, on its way to the client, and beside it to our copy; events of ours go in between.

Nothing that the server sends waits for our copy, but for the line that only ends a stream (`[DONE]`): where the client
gets our events too, it comes after them, or when `linger` is over.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Send

from eyeline.errors import EyelineError
from eyeline.proxy.events_of_bytes import Splitter, data_of, with_data
from eyeline.proxy.followed import FollowDesk, Followed
from eyeline.proxy.forwarding import Pictures, UnfollowedError
from eyeline.proxy.servers import Account, Restorer, parsed
from eyeline.proxy.surgery import put_in
from eyeline.server.chunks import sse
from eyeline.server.request_error import RequestError
from eyeline.server.response import EventStream

HEARTBEAT = b":\n"  # one end of line: an empty line would end an event that has an id and no data
DONE = b"[DONE]"
HEAD_START_S = 0.005  # of the server's first words, before images are decoded and written
CUT_SHORT = "The server's answer was cut short; what had come is attributed."


@dataclass(frozen=True, eq=False)
class Opening:
    """What it takes to begin to follow an answer."""

    run: str
    question: Mapping[str, Any]  # to be asked of our copy: messages, options, hidden
    pictures: Pictures
    prompt: str  # the last question
    client: str
    saved: bool


class Tee:
    """Shows our copy what a server sends, without holding that up; `leases` hold the run meanwhile."""

    def __init__(
        self, desk: FollowDesk, opening: Opening | None, failure: str | None, leases: ExitStack
    ) -> None:
        self.desk, self.opening, self.failure, self.leases = desk, opening, failure, leases
        self.account = Account()
        self.asking: Followed | None = None
        self.known = asyncio.Event()  # whether the answer is followed, or why not
        self._parts: list[dict[str, Any]] = []  # until it is
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        if failure is not None:
            self.known.set()

    def take(self, chunk: dict[str, Any]) -> None:
        """Whatever a chunk holds, the client's answer goes on; what is no chunk as we know it ends the following."""
        if self.opening is None or self._ended:
            return
        try:
            parts = self.account.read(chunk)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            return self.end(
                "error", f"The server's answer cannot be read from here on ({type(error).__name__})."
            )
        if self.account.tier is not None and self._task is None:
            self._task = asyncio.create_task(self._open(self.opening))
        self._push(*parts)

    def end(self, finish: str | None, message: str | None = None) -> None:
        """Nothing more comes; once is enough."""
        if self._ended:
            return
        self._ended = True
        account = self.account
        if self._task is None and self.failure is None:
            self.failure = "This answer is not attributed: the server sent no text."
            self.known.set()
        if account.tier == "ids" and account.expected not in (None, account.told) and message is None:
            message = f"The server counts {account.expected} tokens and told {account.told} ids: some spans may be missing."
        live = account.tier == "ids"  # then its prompt was there before the first id
        end = {
            "finish": finish or "error", "message": message, "exact": account.exact,
            "prompt_ids": None if live else account.prompt_ids,
        }  # fmt: skip
        self._push({"end": end})

    async def close(self) -> None:
        """The client has all it gets, or is gone."""
        self.end("cancelled")
        opening = self.opening
        if self._task is not None:
            await asyncio.wait({self._task})
        if opening is not None and self.asking is None:
            self.desk.store.discard(opening.run)

    def _push(self, *parts: dict[str, Any]) -> None:
        if self.asking is None:
            self._parts += parts
        else:
            self.asking.push(*parts)

    async def _open(self, opening: Opening) -> None:
        """Writes the run's images first: what the client gets does not wait for that."""
        try:
            await asyncio.sleep(HEAD_START_S)
            images = await opening.pictures.read()
            writer = await asyncio.to_thread(self.desk.store.prepare, opening.run, images, opening.prompt)
            self.asking = self.desk.open_followed(
                opening.run, writer, opening.question, self.account, opening.client, saved=opening.saved
            )
            self.leases.enter_context(self.desk.reading(self.asking, keeps=not opening.saved))
            self.asking.push(*self._parts)
        except UnfollowedError as error:
            self.failure = str(error)
        except (EyelineError, RequestError) as error:
            sentence = str(error).rstrip(".")
            self.failure = f"This answer is not attributed: {sentence}."
        finally:
            self.known.set()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Ours as they come, in JSON form."""
        await self.known.wait()
        if self.asking is not None:
            async for line in self.asking.log.follow(self.desk.settings.heartbeat):
                if line:
                    yield json.loads(line)
            await self.asking.over.wait()
            failure = self.asking.failure
            self.failure = None if failure is None else failure.message
        if self.failure is not None:
            yield {"event": "error", "message": self.failure}


class Relay(EventStream):
    """A stream of the server's, event by event, with ours between them if they are wanted."""

    def __init__(
        self,
        answer: Any,
        headers: dict[str, str],
        restorer: Restorer,
        tee: Tee,
        *,
        shows: bool,
        linger: float,
    ) -> None:
        super().__init__(self._parts(), tee.leases, tee.desk.counters)
        self.status_code = answer.status_code
        self.headers.update(headers)
        self.answer, self.restorer, self.tee, self.shows, self.linger = answer, restorer, tee, shows, linger
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._first = asyncio.Event()  # one of the server's events is out
        self._held: list[bytes] = []  # the line that ends the stream
        self._cut = False  # the server's connection broke, so the client's does

    async def _send(self, send: Send) -> None:
        async def unless_cut(message: Any) -> None:
            if message.get("more_body") or message["type"] != "http.response.body" or not self._cut:
                await send(message)

        await super()._send(unless_cut)

    async def _parts(self) -> AsyncIterator[bytes]:
        pulling = asyncio.create_task(self._pull())
        heartbeat = self.tee.desk.settings.heartbeat if self.shows else None
        try:
            while True:
                try:
                    part = (
                        await asyncio.wait_for(self._out.get(), heartbeat)
                        if self._out.empty()
                        else self._out.get_nowait()
                    )
                except TimeoutError:
                    part = HEARTBEAT
                if part is None:
                    await pulling
                    return
                yield part
        finally:
            pulling.cancel()
            await asyncio.wait({pulling})
            await self.answer.aclose()
            await self.tee.close()

    async def _pull(self) -> None:
        """Passes on what the server sends, until it ends, and then what is left of ours."""
        telling = asyncio.create_task(self._tell()) if self.shows else None
        splitter, account = Splitter(), self.tee.account
        try:
            message = None
            try:
                async for part in self.answer.aiter_bytes():
                    for event in splitter.feed(part):
                        self._pass_on(event)
            except Exception as error:
                self._cut = True
                message = f"The connection to the server broke ({type(error).__name__}). {CUT_SHORT}"
            if splitter.rest:
                self._out.put_nowait(splitter.rest)
            self._first.set()
            if account.error is not None:
                message = f"The server says: {account.error}"
            elif account.finish is None:
                message = message or CUT_SHORT
            self.tee.end(account.finish if message is None else "error", message)
            if telling is not None:
                await asyncio.wait({telling}, timeout=self.linger)
            for event in self._held:
                self._out.put_nowait(event)
        finally:
            if telling is not None:
                telling.cancel()
            self._out.put_nowait(None)

    def _pass_on(self, event: bytes) -> None:
        data = data_of(event)
        if data == DONE and self.shows:
            self._held.append(event)
            return
        chunk = parsed(data)
        if chunk is None or data is None:
            self._out.put_nowait(event)
            return
        text = data.decode()
        restored = self.restorer.restore(text, chunk)
        if restored is not None:
            # the same object where nothing was to be taken out
            self._out.put_nowait(event if restored is text else with_data(event, data, restored.encode()))
            self._first.set()
        self.tee.take(chunk)

    async def _tell(self) -> None:
        await self._first.wait()
        async for event in self.tee.events():
            choice = {"index": 0, "delta": {}, "finish_reason": None}
            about = {"id": self.tee.opening.run if self.tee.opening else "", **self.tee.account.sent}
            chunk = {**about, "object": "chat.completion.chunk", "choices": [choice], "eyeline": event}
            self._out.put_nowait(sse(chunk))


async def whole(
    content: bytes, status: int, headers: dict[str, str], restorer: Restorer, tee: Tee, *, shows: bool, linger: float
) -> Response:  # fmt: skip
    """A completion that is not streamed, with our events in its message if they are wanted and come in time."""
    chunk = parsed(content) if status == 200 else None
    if chunk is not None:
        text = content.decode()
        restored = restorer.restore(text, chunk) or text
        tee.take(chunk)
        tee.end(tee.account.finish)
        if shows:
            events: list[dict[str, Any]] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(linger):
                    async for event in tee.events():
                        if event["event"] != "text":
                            events.append(event)
            restored = put_in(restored, "eyeline", json.dumps(events, separators=(",", ":")))
        content = content if restored is text else restored.encode()
    return Response(content, status, headers)
