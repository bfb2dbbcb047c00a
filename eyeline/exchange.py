"""What the two threads of a stream hand on: the producer jobs to the worker, both of them events to whoever iterates."""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eyeline.agreement import Comparison
from eyeline.asked import Asked
from eyeline.capture import AttentionCapture, NoCapture
from eyeline.decoding import Likely
from eyeline.errors import EyelineError
from eyeline.events import Done, Error, Event, Grid, Notice, Reason, RestsOn, SpanAttribution, Start, Text
from eyeline.kept_games import Games
from eyeline.spans import Segmenter, Span
from eyeline.targets import answer_ranges


@dataclass(frozen=True, eq=False)
class Job:
    """A span to attribute, or, without one, the image to read; `mark` is a CUDA event to wait for.

    `early`: the vision tower has seen the image, so that its regions can be found while the text model reads it. `ahead`: instead
    of either, where some tokens start and their ids, to read although their span has not ended.
    """

    capture: AttentionCapture | NoCapture
    span: Span | None
    mark: Any
    early: bool = False
    ahead: tuple[int, Sequence[int]] | None = None


@dataclass(eq=False)
class Exchange:
    """Of one stream; shared by its threads and its reader."""

    asked: Asked
    segmenter: Segmenter
    most_pending_bytes: int  # of captured steps; where more wait to be attributed, decoding waits
    agreement: Comparison | None = None  # with the server that writes the trace; None: our model does
    is_written: bool = False  # the trace is given, and no speed is told
    events: "queue.SimpleQueue[Event]" = field(default_factory=queue.SimpleQueue)
    work: "queue.SimpleQueue[Job | None]" = field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: threading.Condition = field(default_factory=threading.Condition)  # of the worker
    started: bool = False  # `Start` is out; the worker's own
    waiting: int = 0  # jobs handed to the worker and not done yet; guarded by `progress`
    likely: list[Likely | None] = field(
        default_factory=list
    )  # of each id, where it is known; there before it
    ids: list[int] = field(default_factory=list)
    passed_on: list[Text | SpanAttribution] = field(
        default_factory=list
    )  # texts and spans so far; the worker appends spans, the producer texts
    opening: Start | None = None  # the events at both ends, once they are there
    ending: Done | None = None
    games: Games = field(default_factory=Games)
    times: list[float] = field(default_factory=list)  # when each token was there
    begun: float = 0.0  # when decoding began
    stalled_s: float = 0.0
    reason: Reason = "error"

    def __post_init__(self) -> None:
        self.games.chances = None if self.asked.estimator is None else self.asked.estimator.chances

    # --- the producer's side

    def begin(self) -> None:
        """Notes when decoding began, after the prompt had been read."""
        self.begun = time.perf_counter()

    def add(self, token_id: int, likely: Likely | None, at: float | None) -> None:
        """Notes an id, how likely whoever wrote it had it, and when it was there: by default now."""
        self.likely.append(likely)
        self.times.append(time.perf_counter() if at is None else at)
        self.ids.append(token_id)

    def hand_over(self, job: Job) -> None:
        with self.progress:
            self.waiting += 1
        self.work.put(job)

    def keep_pace(self, capture: AttentionCapture | NoCapture) -> None:
        """Waits for the worker where too much is pending."""
        if capture.pending_bytes <= self.most_pending_bytes:
            return
        begun = time.perf_counter()
        with self.progress:
            self.progress.wait_for(
                lambda: (
                    not self.waiting
                    or capture.pending_bytes <= self.most_pending_bytes
                    or self.cancelled.is_set()
                )
            )
        self.stalled_s += time.perf_counter() - begun

    # --- the worker's side

    def start(self, regions: tuple[Grid, ...], notices: tuple[Notice, ...] = ()) -> None:
        """Puts the `Start` event, unless it is out already."""
        if not self.started:
            self.started = True
            self.opening = self.asked.start(regions, notices)
            self.events.put(self.opening)

    def seconds_since(self, position: int) -> float:
        """Since the token at a position was there."""
        return time.perf_counter() - self.times[position]

    def job_done(self) -> None:
        with self.progress:
            self.waiting -= 1
            self.progress.notify_all()

    def done(self) -> None:
        """Puts the `Done` event."""
        # what another server writes may be there before our copy has read the prompt
        timed = len(self.times) > 1 and not self.is_written
        seconds = (self.times[-1] - min(self.begun, self.times[0])) if timed else 0.0
        self.ending = Done(
            answer=self.segmenter.answer,
            prompt_tokens=self.asked.prompt_tokens,
            tokens=len(self.ids),
            tokens_per_s=round(len(self.ids) / seconds, 2) if seconds > 0 else 0.0,
            stalled_s=round(self.stalled_s, 4),
            reason=self.reason,
            agreement=None if self.agreement is None else self.agreement.result,
            rests_on=self._rests_on(),
        )
        self.events.put(self.ending)

    def rests_on(self, sets: Sequence[Sequence[int]] | None = None) -> RestsOn:
        """What the answer rests on, of every region or of some sets. Raises `DataError` or `RegionError`."""
        return self.games.rests_on(answer_ranges(self.passed_on), sets)

    def _rests_on(self) -> RestsOn | None:
        """The same for the last event: None where it cannot be said."""
        try:
            return self.rests_on()
        except EyelineError:
            return None

    # --- of both, and of the reader

    @property
    def so_far(self) -> list[Event]:
        """All events that a run is made of, as far as they are there."""
        return [each for each in (self.opening, *self.passed_on, self.ending) if each is not None]

    def pass_on(self, event: Text | SpanAttribution) -> None:
        self.passed_on.append(event)
        self.events.put(event)

    def fail(self, message: str) -> None:
        """Puts an `Error` event."""
        self.events.put(Error(message))

    def cancel(self) -> None:
        self.cancelled.set()
        with self.progress:
            self.progress.notify_all()


def sentence(error: Exception) -> str:
    """What an error says, on one line; of errors that are not ours with their kind."""
    if isinstance(error, EyelineError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0].rstrip(": ")
