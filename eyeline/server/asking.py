"""A question from the moment it is let in to its last event, whoever reads it and however slowly.

The model's events go into the run's log; responses follow the log. The readers of a run hold a lease on it: when the
last one is gone the question is cancelled if it is still on, and its run is removed unless it is to be kept.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from eyeline.embedded import ALIASES
from eyeline.errors import DataError, EyelineError
from eyeline.events import Done, Error, Event, Reason, SpanAttribution, Start, Text, from_json
from eyeline.images import open_image
from eyeline.server.chunks import Envelope
from eyeline.server.counters import Counters
from eyeline.server.engine import Engine, EngineDiedError, EngineRefusedError, Message
from eyeline.server.line import Line, Ticket
from eyeline.server.pictures import read_pictures
from eyeline.server.request import (
    LARGEST_SEED,
    ChatRequest,
    check,
    conversation,
    image_urls,
    max_tokens,
    stops_of,
    text_of,
)
from eyeline.server.request_error import RequestError, not_found
from eyeline.server.safety import Settings
from eyeline.server.store import Log, Row, Store
from eyeline.server.telemetry import Telling

ATTEMPTS = 3  # of a question that the model's process dies on
STOPPED = "The server is stopping: generation was ended."
DIFFERS = (
    "The model's process died, and the question was asked again, but what came then is not what had been sent: "
    "the answer ends here. Ask again."
)
CODES = {"ContextError": "context_length_exceeded", "ImageError": "invalid_image"}


class ReplayError(Exception):
    """What came again after the model's process died is not what had been sent."""


class Asking:
    """One question that waits, runs or has just ended.

    When the model's process dies, everything comes again: it is compared with what the log holds, numbers apart (no
    two processes round alike), so that an answer, its spans and its ids are always those of one generation.
    """

    def __init__(self, row: Row, log: Log, ticket: Ticket, job: int, prompt_token_ids: Sequence[int]) -> None:
        self.row, self.log, self.ticket, self.job = row, log, ticket, job
        self.prompt_token_ids = prompt_token_ids
        self.readers = 0
        self.running = False
        self.over = asyncio.Event()
        self.failure: RequestError | None = None  # instead of a last event
        self.token_ids: list[int] = []  # as many as are known
        self.reliances: list[float] = []  # `whole_image` of the spans written so far, where it is known
        self.log_probs: list[Any] = []  # how likely each was, as OpenAI's API says it, where that was asked
        self.done: Done | None = None
        self.stopped: str | None = None  # why it was cancelled, where its reader is to know
        self.cancelled = False
        self.task: asyncio.Task[None]
        # what the log holds already, tokens up to `end`
        self.started, self.end, self.answer, self.problem = False, 0, "", ""

    @property
    def envelope(self) -> Envelope:
        return Envelope(self.row.id, int(self.row.created), self.row.model)

    def begin_attempt(self) -> None:
        sent = self.log.read()
        self._starts = deque(event for event in sent if isinstance(event, Start))
        self._texts = deque(event for event in sent if isinstance(event, Text))
        self._spans = {event.index: _words(event) for event in sent if isinstance(event, SpanAttribution)}
        self._errors = {event.message for event in sent if isinstance(event, Error)}
        # of those beyond nothing was sent
        self.token_ids, self.log_probs = self.token_ids[: self.end], self.log_probs[: self.end]
        self.ids_come = 0

    def news(self, event: Event) -> bool:
        """Whether an event is to be written. Raises `ReplayError` where another one was, in its place."""
        match event:
            case Start() if self._starts:
                _check(self._starts.popleft() == event)
                return False
            case Text() if self._texts:
                _check(self._texts.popleft() == event)
                return False
            case SpanAttribution() if event.index in self._spans:
                _check(self._spans[event.index] == _words(event))
                return False
            case SpanAttribution():  # an earlier one was lost, and an error said so
                return event.index > max(self._spans, default=-1)
            case Error():
                return event.message not in self._errors
        return True

    def take_ids(self, ids: Sequence[int], log_probs: Sequence[Any] = ()) -> None:
        """The ids that follow those that have come in this attempt. Raises `ReplayError`."""
        known = self.token_ids[self.ids_come : self.ids_come + len(ids)]
        _check(known == list(ids[: len(known)]))
        self.token_ids += ids[len(known) :]
        self.log_probs += log_probs[len(known) :]
        self.ids_come += len(ids)

    @property
    def caught_up(self) -> bool:
        """Whether all that was sent in earlier attempts has come again."""
        return not self._texts and self.ids_come >= self.end

    def write(self, event: Event) -> None:
        match event:
            case Start():
                self.started = True
            case Text():
                self.end = max(self.end, event.end)
                self.answer += event.text if event.channel == "answer" else ""
            case SpanAttribution():
                self.end = max(self.end, event.end)
                self.reliances += [] if event.whole_image is None else [event.whole_image]
            case Error():
                self.problem = event.message
            case Done():
                self.done = event
        self.log.write(event)

    def whole(self) -> Done:
        """The last event of an answer that came to its end. Raises a `RequestError` for any other, streamed or not."""
        if self.failure is not None:
            raise self.failure
        if self.done is None or self.done.reason == "error":
            raise refusal("error", self.problem)
        if self.done.reason == "cancelled":
            raise refusal("cancelled", self.stopped)
        return self.done


def refusal(reason: Reason, message: str | None) -> RequestError:
    """What the client of a question is told that was cancelled or failed."""
    if reason == "cancelled":
        return RequestError(503, "stopping", message or "The question was cancelled.")
    return RequestError(500, "internal", message or "Generation failed; ask again.")


def _words(span: SpanAttribution) -> tuple[Any, ...]:
    return span.channel, span.start, span.end, span.text, span.cut


def _check(same: bool) -> None:
    if not same:
        raise ReplayError


class Desk:
    """Lets questions in, and sees each of them through."""

    def __init__(
        self, engine: Engine, store: Store, line: Line, settings: Settings, counters: Counters
    ) -> None:
        self.engine, self.store, self.line, self.settings, self.counters = (
            engine,
            store,
            line,
            settings,
            counters,
        )
        self.open: dict[str, Asking] = {}
        self.stopping = False
        self._cancelling: set[asyncio.Task[None]] = set()
        self.preparing = asyncio.Semaphore(2)  # decoded images in memory
        self.auditor: Any = None  # of auditing.py, which stands above, where questions are audited

    def check_open(self) -> None:
        if self.stopping:
            raise RequestError(503, "stopping", "The server is stopping; ask again when it is back.")
        self.line.check_room()

    # --- letting in

    async def ask(self, request: ChatRequest, client: str) -> Asking:
        """Raises a `RequestError` for all that can be found before it is the question's turn."""
        about = self.engine.about
        if request.model is not None and request.model not in self.names:
            raise RequestError(
                404,
                "model_not_found",
                f"The model {request.model[:100]!r} is not served here; expected {about.name!r}.",
                param="model",
            )
        check(request, self.settings)
        options: dict[str, Any] = {
            "max_new_tokens": max_tokens(request),
            "stop": stops_of(request),
            "seed": secrets.randbelow(LARGEST_SEED) if request.seed is None else request.seed,
            "regions": request.eyeline.regions,
            "sources": request.eyeline.sources,
            "measure_whole": request.eyeline.measure_whole,
        }
        if request.logprobs:
            options["top_logprobs"] = request.top_logprobs or 0
        for name in ("temperature", "top_p"):
            if (value := getattr(request, name)) is not None:
                options[name] = value
        question = {"messages": conversation(request.messages), "options": options, "hidden": None}
        urls, prompt = image_urls(request.messages), text_of(request.messages[-1])
        run = self.store.new_id()
        async with self.preparing:
            self.check_open()
            writer = await asyncio.to_thread(
                lambda: self.store.prepare(run, read_pictures(urls, self.settings), prompt)
            )
        return await self._let_in(run, writer, question, client, saved=request.eyeline.save)

    async def ask_without(self, row: Row, hidden: Mapping[str, Any], client: str, *, saved: bool) -> Asking:
        """The question of a run again; `hidden` holds `run`, `regions`, `method` and `grids`."""
        run = self.store.new_id()
        async with self.preparing:
            self.check_open()
            writer = await self.read(
                row,
                lambda folder: self.store.prepare(
                    run,
                    [open_image(folder / f"image-{number}.png") for number in range(row.images)],
                    row.prompt,
                ),
            )
        return await self._let_in(run, writer, {**row.question, "hidden": hidden}, client, saved=saved)

    @property
    def names(self) -> tuple[str, ...]:
        """What the model may be called."""
        name = self.engine.about.name
        return (name, *(alias for alias, meant in ALIASES.items() if meant == name))

    async def _let_in(
        self, run: str, writer: Any, question: dict[str, Any], client: str, *, saved: bool
    ) -> Asking:
        about, settings = self.engine.about, self.settings
        images = len(writer.images)
        log = self.store.add(run, writer, about.name, question, saved=saved)
        try:
            prompt_ids = await self._read(run, images, question["messages"])
            options, room = question["options"], about.context - len(prompt_ids)
            wanted = options["max_new_tokens"]
            if wanted is not None and wanted > room:
                raise RequestError(
                    400,
                    "context_length_exceeded",
                    f"max_tokens is {wanted}, but the prompt takes {len(prompt_ids)} tokens and the context holds "
                    f"{about.context}; expected 1 to {room}.",
                    param="max_tokens",
                )
            options["max_new_tokens"] = wanted or min(settings.max_tokens, room)
            self.check_open()
            ticket = self.line.enter(client)
        except BaseException:
            log.close()
            self.store.discard(run)
            raise
        asking = Asking(self.store.get(run), log, ticket, self.engine.number(), prompt_ids)
        asking.row.question["options"].update(options)  # pyright: ignore
        self.begin(asking)
        return asking

    def begin(self, asking: Asking) -> None:
        """Sees a question through that stands in the line."""
        run = asking.row.id
        self.open[run] = asking
        self.counters.queue.set(len(self.line))
        asking.task = asyncio.create_task(self._see_through(asking), name=run)

    async def _read(self, run: str, images: int, messages: Any) -> Sequence[int]:
        """The token ids of the prompt."""
        for _ in range(ATTEMPTS):
            try:
                folder = str(self.store.folder / run)
                found = await self.engine.call("check", folder=folder, images=images, messages=messages)
                return found["prompt_token_ids"]
            except EngineRefusedError as error:
                code = CODES.get(error.kind, "invalid_value")
                raise RequestError(400, code, str(error), param="messages") from None
            except EngineDiedError:
                continue
        raise RequestError(500, "internal", "The model's process died on this request.")

    # --- seeing through

    async def _see_through(self, asking: Asking) -> None:
        telling = Telling(asking.row.model, asking.row.id, asking.row.question["options"])
        try:
            await asking.ticket.turn()
            asking.running = True
            self.counters.queue.set(len(self.line))
            for _ in range(ATTEMPTS):
                try:
                    await self._generate(asking)
                    break
                except EngineDiedError:
                    if asking.cancelled:
                        self._end(asking, asking.stopped, "cancelled")
                        break
            else:
                self._end(asking, f"The model's process died {ATTEMPTS} times on this question.", "error")
        except asyncio.CancelledError:  # while it waited
            self._end(asking, asking.stopped, "cancelled")
        except EngineRefusedError as error:
            self._end(asking, str(error), "error")
        except ReplayError:
            self._end(asking, DIFFERS, "error")
        except DataError as error:
            self._lose(asking, RequestError(500, "internal", str(error)))
        except Exception as error:
            self._end(asking, f"Generation failed: {type(error).__name__}.", "error")
            raise
        finally:
            asking.ticket.leave()
            self.counters.queue.set(len(self.line))
            if telling.heard:
                failed = asking.failure.code if asking.failure else ""
                problem = failed or ("error" if asking.done and asking.done.reason == "error" else "")
                telling.end(asking.done, asking.reliances, problem)
            asking.log.close()
            asking.over.set()
            self._forget(asking)
            if self.auditor is not None and asking.done is not None and asking.failure is None:
                self.auditor.take(asking.row)

    async def _generate(self, asking: Asking) -> None:
        asking.begin_attempt()
        done, told = None, False
        async with aclosing(self._messages(asking)) as messages:  # pyright: ignore
            async for message in messages:
                if message.kind == "result":
                    assert done is not None, "the last event of a stream"
                    self._finish(asking, done, message.values)
                    return
                if asking.cancelled and not told:  # perhaps while the process was started again
                    told = True
                    await self.engine.cancel(asking.job)
                asking.take_ids(message.values["ids"], message.values.get("log_probs", ()))
                event = from_json(message.line.decode())
                if isinstance(event, Done):
                    done = event  # written when its ids are there
                elif asking.news(event):
                    asking.write(event)
                    self.counters.count(event)

    def _messages(self, asking: Asking) -> AsyncIterator[Message]:
        question = asking.row.question
        return self.engine.stream(
            "ask",
            job=asking.job,
            folder=str(self.store.folder_of(asking.row)),
            images=asking.row.images,
            messages=question["messages"],
            options=question["options"],
            hidden=question["hidden"],
        )

    def _finish(self, asking: Asking, done: Done, result: Mapping[str, Any]) -> None:
        """The last events of a question that the model ended itself."""
        asking.take_ids(result["token_ids"][asking.ids_come :], result.get("log_probs", ()))
        self.counters.count(done)
        stopped = asking.stopped if done.reason == "cancelled" else None
        if not asking.caught_up:
            if done.reason not in ("cancelled", "error"):
                raise ReplayError
            return self._end(asking, stopped, done.reason)  # `done` tells of less than was sent
        if stopped is not None:
            asking.write(Error(stopped))
        self.store.finish(asking.row.id, done, asking.token_ids)
        asking.write(done)

    def _end(self, asking: Asking, message: str | None, reason: Reason) -> None:
        """The last events of a question that the model did not end itself."""
        if not asking.started:
            return self._lose(asking, refusal(reason, message))
        ids = asking.token_ids = asking.token_ids[: asking.end]
        try:
            if message is not None:
                asking.write(Error(message))
            done = Done(asking.answer.strip(), len(asking.prompt_token_ids), len(ids), 0.0, 0.0, reason)
            self.store.finish(asking.row.id, done, ids)
            asking.write(done)
        except DataError as error:
            self._lose(asking, RequestError(500, "internal", str(error)))

    def _lose(self, asking: Asking, failure: RequestError) -> None:
        asking.failure = failure

    def _forget(self, asking: Asking) -> None:
        """Removes what nobody reads and nobody is to keep."""
        if asking.over.is_set() and not asking.readers:
            self.open.pop(asking.row.id, None)
            if not asking.row.saved or not asking.started:
                self.store.discard(asking.row.id)

    @contextmanager
    def reading(self, asking: Asking, *, keeps: bool = True) -> Iterator[Asking]:
        """A lease; when the last one that `keeps` the question on is gone, it is cancelled."""
        asking.readers += 1
        try:
            yield asking
        finally:
            asking.readers -= 1
            if keeps:
                self.cancel(asking)
            self._forget(asking)

    def cancel(self, asking: Asking, why: str | None = None) -> None:
        if asking.over.is_set() or asking.cancelled:
            return
        asking.cancelled, asking.stopped = True, why
        if asking.running:
            task = asyncio.create_task(self.engine.cancel(asking.job))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)
        else:
            asking.task.cancel()

    async def stop(self) -> None:
        """Ends what is still on, and says so to those who read it."""
        self.stopping = True
        for asking in list(self.open.values()):
            self.cancel(asking, STOPPED)
        for asking in list(self.open.values()):
            await asyncio.wait({asking.task}, timeout=5)

    # --- looking up

    def find(self, run: str) -> Row:
        """A run that is saved or being read. Raises a `RequestError`."""
        row = self.store.get(run)
        if not row.saved and run not in self.open:
            raise not_found("such run")
        return row

    async def read(self, row: Row, reader: Callable[[Path], Any]) -> Any:
        """What `reader` makes of a run's folder, in a thread. Raises a `RequestError` where it was deleted meanwhile."""
        try:
            return await asyncio.to_thread(reader, self.store.folder_of(row))
        except (OSError, EyelineError):
            self.find(row.id)
            raise

    async def finished(self, run: str) -> AsyncIterator[None]:
        """Yields now and then until a run is over."""
        while (asking := self.open.get(run)) is not None and not asking.over.is_set():
            yield
            try:
                await asyncio.wait_for(asking.over.wait(), self.settings.heartbeat)
            except TimeoutError:
                continue
