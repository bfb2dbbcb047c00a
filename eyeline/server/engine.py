"""The model in a process of its own: this side asks and listens, the other side computes.

Messages are a line of JSON, for events followed by the event's own line; nothing is pickled. The other side does one
job at a time and meanwhile listens for checks and cancellations. When it dies it is started again, and whoever
waited for it is told so by `EngineDiedError`.
"""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from eyeline import load
from eyeline.asked import Hidden
from eyeline.contrast import contrast
from eyeline.errors import DataError, EyelineError
from eyeline.estimator_files import ATTENTION, estimator_for
from eyeline.events import to_json
from eyeline.fingerprint import fingerprint
from eyeline.images import open_image
from eyeline.runs import keep, read_run
from eyeline.server.likelihood import describe
from eyeline.span_check import measure
from eyeline.stream import Stream, stream
from eyeline.thinking_again import think_again
from eyeline.vocabulary import Vocabulary

log = logging.getLogger("eyeline.server")
MOST_RESTARTS = 5  # in a row, without any job done


class EngineDiedError(Exception):
    """The model's process died in the middle of a job."""


class EngineRefusedError(EyelineError):
    """The model's process refused a job; the message is for the user, `kind` the name of the error over there."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class About:
    """What the model's process says of itself when it is ready."""

    name: str
    estimator: str | None
    unit: str
    context: int  # tokens
    method: str  # how regions are hidden
    fingerprint: str = ""
    expected: float | None = None  # LDS that the estimator has on images held out, where its card says it


@dataclass(frozen=True, slots=True)
class Message:
    """One answer to a job. `kind`: `event` (its line in `line`), `result`, `refused`, `failed` or `died`.

    An event's `values` hold `ids`, the token ids that were generated since the event before, and `log_probs`, what
    OpenAI's API says of how likely each of them was, where that was asked.
    """

    kind: str
    values: Mapping[str, Any]
    line: bytes = b""


class Engine:
    """Starts the model's process, keeps it alive, and hands jobs to it; belongs to one event loop.

    `start` waits until the model is loaded, and raises `EyelineError` where it cannot be.
    """

    def __init__(
        self,
        model: str,
        estimator: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        worker: "type[Worker] | None" = None,
    ) -> None:  # options of `eyeline.load`
        estimator = None if estimator is None else str(estimator)
        self._spec = (worker or Worker, model, estimator, dict(options or {}))
        self._jobs: dict[int, asyncio.Queue[Message]] = {}
        self._numbers = iter(range(1, 2**63))
        self._sender = ThreadPoolExecutor(1, "eyeline-engine-sender")
        self._closing = False
        self.restarts = 0
        self.failures = 0  # restarts in a row

    # --- opening and closing

    def start(self) -> None:
        self.about = self._spawn()

    def _spawn(self) -> About:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_run, args=(theirs, *self._spec), name="eyeline-model")
        self.process.daemon = True
        self.process.start()
        theirs.close()
        try:
            kind, values, _ = _read(self._pipe)
        except (EOFError, OSError):
            raise EyelineError("The model's process ended while it loaded; is there enough memory?") from None
        if kind != "ready":
            raise EyelineError(values["message"])
        return About(**values)

    async def open(self) -> None:
        """Begins to listen; called in the event loop that uses the engine."""
        self._loop = asyncio.get_running_loop()
        self.ready = asyncio.Event()
        self.ready.set()
        self._listener = threading.Thread(target=self._listen, name="eyeline-engine-listener", daemon=True)
        self._listener.start()

    @property
    def alive(self) -> bool:
        return self.ready.is_set() and self.failures <= MOST_RESTARTS

    async def close(self) -> None:
        self._closing = True
        self.process.kill()  # it holds nothing that could be lost
        await asyncio.to_thread(self.process.join)
        await asyncio.to_thread(self._listener.join, 5)
        self._sender.shutdown()
        self._pipe.close()

    def _listen(self) -> None:
        """Reads what the process says; starts another one when it dies."""
        while True:
            try:
                number, (kind, values, line) = -1, _read(self._pipe)
                number = values.pop("job", -1)
                self._post(self._deliver, number, Message(kind, values, line))
            except (EOFError, OSError):
                if self._closing:
                    return
                self._post(self._mourn)
                self.process.join()
                log.warning("The model's process ended with %s; starting it again", self.process.exitcode)
                self._pipe.close()
                self.restarts += 1
                self.failures += 1
                if self.failures > MOST_RESTARTS:
                    self._post(self.ready.set)  # for whoever waits for a process that does not come
                    return
                try:
                    self._spawn()
                except EyelineError:
                    continue
                self._post(self.ready.set)

    def _post(self, call: Callable[..., Any], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *values)

    def _deliver(self, number: int, message: Message) -> None:
        if number in self._jobs:
            self._jobs[number].put_nowait(message)
        if message.kind == "result":
            self.failures = 0

    def _mourn(self) -> None:
        self.ready.clear()
        for answers in self._jobs.values():
            answers.put_nowait(Message("died", {}))

    # --- jobs

    async def send(self, **values: Any) -> None:
        """A message that nothing answers, unless it is a job."""
        data = json.dumps(values).encode()
        with contextlib.suppress(OSError):  # it has just died, and the listener knows
            await self._loop.run_in_executor(self._sender, lambda: self._pipe.send_bytes(data))

    async def call(self, op: str, **values: Any) -> Mapping[str, Any]:
        """One job with one answer. Raises `EngineRefusedError`, `EngineDiedError` or `RuntimeError`."""
        async for message in self.stream(op, **values):
            if message.kind == "result":
                return message.values
        raise RuntimeError("the model's process gave no result")

    def number(self) -> int:
        """A number for a job that may have to be cancelled."""
        return next(self._numbers)

    async def stream(self, op: str, job: int | None = None, **values: Any) -> AsyncIterator[Message]:
        """The answers to one job, a `result` last. A job that is left early is cancelled."""
        await self.ready.wait()
        if self.failures > MOST_RESTARTS:
            raise EngineDiedError
        number = job or self.number()
        self._jobs[number] = answers = asyncio.Queue()
        over = False
        try:
            await self.send(op=op, job=number, **values)
            while not over:
                message = await answers.get()
                over = message.kind != "event"
                if message.kind == "died":
                    raise EngineDiedError
                if message.kind == "refused":
                    raise EngineRefusedError(message.values["message"], message.values["error"])
                if message.kind == "failed":
                    raise RuntimeError(message.values["message"])
                yield message
        finally:
            del self._jobs[number]
            if not over:
                await asyncio.shield(self.cancel(number))

    async def cancel(self, job: int) -> None:
        """Ends a generation within a token; its last events still come."""
        await self.send(op="cancel", target=job)


def _read(pipe: Connection) -> tuple[str, dict[str, Any], bytes]:
    head, _, line = pipe.recv_bytes().partition(b"\n")
    values = json.loads(head)
    return values.pop("kind"), values, line


# --- the other process


def _run(
    pipe: Connection, kind: "type[Worker]", model_id: str, estimator: str | None, options: Mapping[str, Any]
) -> None:
    """Loads the model, then does jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other side's to handle
    worker = kind(pipe)
    try:
        worker.load(model_id, estimator, options)
        threading.Thread(target=worker.listen, daemon=True).start()
        worker.work()
    except EyelineError as error:
        worker.say("failed", message=str(error))
    except OSError:  # nobody listens any more
        os._exit(0)


class Worker:
    """Does jobs, each by its method `do_...`: one after the other, but for those of `AT_ONCE`."""

    AT_ONCE: tuple[str, ...] = (
        "check",
        "joint",
        "rests_on",
    )  # done while another job is on, in the thread that listens

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.lock = threading.Lock()  # of the pipe: events and checks come from two threads
        self.changing = threading.Lock()  # of the two below
        self.streams: dict[int, Stream] = {}  # those that are on, by their jobs
        self.cancelled: set[int] = set()

    def say(self, kind: str, line: str | None = None, **values: Any) -> None:
        head = json.dumps({"kind": kind, **values}).encode()
        with self.lock:
            self.pipe.send_bytes(head if line is None else head + b"\n" + line.encode("utf-8", "replace"))

    def load(self, model_id: str, estimator: str | None, options: Mapping[str, Any]) -> None:
        self.model = load(model_id, **options)
        self.vocabulary = Vocabulary(self.model.tokenizer)
        self.estimator = estimator_for(self.model, estimator)
        found = self.estimator
        self.say(
            "ready",
            name=self.model.name,
            estimator=None if found is None else found.id,
            unit="attention" if found is None else found.unit,
            context=self.model.context_length,
            method="pixels" if found is None else found.hiding,
            fingerprint=fingerprint(self.model),
            expected=None if found is None else found.card.get("lds_held_out"),
        )

    def listen(self) -> None:
        """Takes jobs, and does at once what must not wait."""
        while True:
            try:
                job = json.loads(self.pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the other side is gone
            if job["op"] == "cancel":
                self.cancel(job["target"])
            elif job["op"] in self.AT_ONCE:
                self.do(job)
            else:
                self.jobs.put(job)

    def cancel(self, target: int) -> None:
        with self.changing:
            self.cancelled.add(target)
            if target in self.streams:
                self.streams[target].close()

    def work(self) -> None:
        while True:
            self.do(self.jobs.get())

    def do(self, job: dict[str, Any]) -> None:
        number = job.pop("job")
        try:
            self.say("result", job=number, **getattr(self, f"do_{job.pop('op')}")(number, **job))
        except EyelineError as error:
            self.say("refused", job=number, message=str(error), error=type(error).__name__)
        except OSError:
            raise
        except Exception as error:
            self.say("failed", job=number, message=f"{type(error).__name__}: {error}")
        finally:
            with self.changing:
                self.cancelled.discard(number)

    def do_check(self, number: int, folder: str, images: int, messages: Sequence[Any]) -> dict[str, Any]:
        inputs = self.model.inputs(pictures_in(folder, images), messages)
        return {"prompt_token_ids": inputs["input_ids"][0].tolist()}

    def do_ask(
        self,
        number: int,
        folder: str,
        images: int,
        messages: Sequence[Any],
        options: dict[str, Any],
        hidden: dict[str, Any] | None,
    ) -> dict[str, Any]:
        if hidden is not None:
            grids = tuple(tuple(tuple(row) for row in grid) for grid in hidden["grids"])
            options["hidden"] = Hidden(grids, tuple(hidden["regions"]), hidden["method"])
        pictures = pictures_in(folder, images)
        with (
            stream(
                self.model, pictures, messages, estimator=self.estimator or ATTENTION, **options
            ) as events,
            self.on(number, events),
        ):
            return self.tell(number, events, folder)

    @contextlib.contextmanager
    def on(self, number: int, events: Stream) -> Iterator[None]:
        """Meanwhile a job's stream can be cancelled, and asked about."""
        with self.changing:
            self.streams[number] = events
            if number in self.cancelled:
                events.close()
        try:
            yield
        finally:
            with self.changing:
                del self.streams[number]

    def tell(self, number: int, events: Stream, folder: str) -> dict[str, Any]:
        """Says a stream's events as they come; its ids and log-probs, as far as they are not said, are the result."""
        sent = 0
        for event in events:
            new = events.ids[sent:]
            sent += len(new)
            told = describe(self.vocabulary, new, events.likely[sent - len(new) : sent])
            self.say("event", to_json(event), job=number, ids=new, log_probs=told)
        keep(Path(folder), events.games, events.ids, events.generation)
        rest = describe(self.vocabulary, events.ids[sent:], events.likely[sent:])
        return {"token_ids": events.ids, "log_probs": rest}

    def do_joint(self, number: int, of: int, target: Any, regions: Sequence[int]) -> dict[str, Any]:
        target = tuple(target) if isinstance(target, list) else target
        return asdict(self.stream_of(of).joint(target, regions))

    def do_rests_on(self, number: int, of: int, sets: Sequence[Sequence[int]] | None) -> dict[str, Any]:
        return asdict(self.stream_of(of).rests_on(sets))

    def stream_of(self, number: int) -> Stream:
        """That of the question that is on, while it is. Raises `DataError`."""
        with self.changing:
            events = self.streams.get(number)
        if events is None:
            raise DataError("The question has just ended; ask about it again.")
        return events

    def do_measure(
        self,
        number: int,
        folder: str,
        images: int,
        messages: Sequence[Any],
        token_ids: Sequence[int],
        start: int,
        grids: Sequence[Any],
        subsets: Sequence[Sequence[int]],
        method: str,
    ) -> dict[str, Any]:
        """Log-probs of the trace's tokens from `start` on with nothing hidden, and their falls with each subset hidden."""
        if number in self.cancelled:
            return {}
        inputs = self.model.inputs(pictures_in(folder, images), messages)
        found = measure(self.model, inputs, token_ids, grids, subsets, method)  # pyright: ignore
        return {"log_probs": found.log_probs[start:].tolist(), "falls": found.falls[:, start:].tolist()}

    def do_rethink(
        self,
        number: int,
        folder: str,
        messages: Sequence[Any],
        regions: Sequence[int],
        samples: int | None,
        hidden: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Some regions of a run hidden together from the start."""
        if number in self.cancelled:
            return {}
        hidden = hidden or {"regions": (), "method": None}
        told = think_again(
            self.model, read_run(folder), [regions], samples=samples, method=hidden["method"],
            prompt=messages, hidden=hidden["regions"],
        )  # fmt: skip
        return told.as_json()

    def do_contrast(
        self,
        number: int,
        folder: str,
        messages: Sequence[Any],
        span: int,
        instead: str,
        words: str | None,
        hidden: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """What each region of a run does to a span's words and to others in their place."""
        if number in self.cancelled:
            return {}
        hidden = hidden or {"regions": (), "method": None}
        found = contrast(
            self.model, read_run(folder), span, instead, words=words, method=hidden["method"], prompt=messages,
            hidden=hidden["regions"],
        )  # fmt: skip
        return found.as_json()


def pictures_in(folder: str, count: int) -> list[Any]:
    return [open_image(Path(folder) / f"image-{number}.png") for number in range(count)]
