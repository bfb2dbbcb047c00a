"""A trace that another server writes, read while it grows: passes over what is new on one cache, a span behind.

The ids come from outside, in pieces of any size (`Following.push`); our copy of the model reads them as a text that is
there already, and the rest is a stream's: the producer cuts them into spans, the worker attributes.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from eyeline.agreement import Comparison
from eyeline.asked import Asked, check_ids, prepare
from eyeline.decoding import Likely
from eyeline.errors import ImageError, PromptError
from eyeline.estimator import Estimator
from eyeline.events import Notice, Reason
from eyeline.exchange import Exchange
from eyeline.generation import segmenter
from eyeline.images import Picture
from eyeline.model import Model, Prompt
from eyeline.producer import Producer
from eyeline.stream import PENDING_BYTES, Stream
from eyeline.teacher_forcing import Along

MOST_UNREAD = 32  # ids that a span may have before a pass is made without waiting for its end
OTHER = ": is it the same model?"  # what to ask where ids are none of ours


def follow(
    model: Model,
    images: Picture | Sequence[Picture],
    prompt: Prompt,
    *,
    prompt_ids: Sequence[int] | None = None,
    notices: Sequence[Notice] = (),
    estimator: str | Path | Estimator | None = None,
    regions: str | Path | Sequence[str | Path] = "native",
    pending_bytes: int = PENDING_BYTES,
) -> "Following":
    """The events of a trace that is written elsewhere, while it is written: those of `stream` for the same ids, up to rounding.

    `prompt_ids` are those that the other server read, images included; where they are not ours they are read instead, and a
    notice says so. `notices` go into `Start` as they are. `estimator`, `regions` and `pending_bytes` as in `stream`. Raises as
    `stream` does, and `ImageError` for a prompt without images or with images of other sizes.
    """
    asked = prepare(model, images, prompt, estimator, regions)
    if not asked.pictures:
        raise ImageError(
            "The prompt has no image, so there is nothing to attribute to; expected at least one image."
        )
    asked = replace(asked, notices=tuple(notices))
    if prompt_ids is not None:
        asked = _as_read_there(asked, prompt_ids)
    if asked.room <= 0:
        raise PromptError(
            f"The prompt takes {asked.prompt_tokens} tokens, and the model's context holds {model.context_length}; shorten it."
        )
    opened = model.prompt_opens_thinking(asked.inputs["input_ids"])
    exchange = Exchange(asked, segmenter(model, opened=opened), pending_bytes, agreement=Comparison())
    return Following(exchange)


def _as_read_there(asked: Asked, prompt_ids: Sequence[int]) -> Asked:
    """The question with the other server's rendering in place of ours, where they differ."""
    ours = asked.inputs["input_ids"][0].tolist()
    if ours == list(prompt_ids):
        return asked
    image_token = asked.model.adapter.image_token_id(asked.model.hf)
    sizes = [_runs(ids, image_token) for ids in (prompt_ids, ours)]
    if sizes[0] != sizes[1]:
        theirs, expected = (", ".join(map(str, each)) or "none" for each in sizes)
        raise ImageError(
            f"The server reads the images as {theirs} visual tokens, our copy as {expected}: the two resize them differently. "
            "Give both the same smallest and largest size, or let the images be sent resized."
        )
    check_ids(asked.model, prompt_ids, OTHER)
    differs = Notice(
        "prompt",
        f"The server's prompt is not ours: it has {len(prompt_ids)} tokens, ours {len(ours)}, and they differ from token "
        f"{_first_difference(prompt_ids, ours)} on. The server's own is read.",
    )
    ids = torch.tensor([list(prompt_ids)]).to(asked.inputs["input_ids"])
    inputs = {
        **asked.inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == image_token).int(),
    }  # fmt: skip
    return replace(asked, inputs=inputs, notices=(*asked.notices, differs))


def _runs(ids: Sequence[int], token: int) -> list[int]:
    return [len(list(run)) for same, run in groupby(ids, lambda each: each == token) if same]


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


@dataclass(frozen=True, slots=True)
class Piece:
    """An id that has come."""

    token_id: int
    log_prob: float | None  # as the server tells it
    at: float  # when


@dataclass(frozen=True, slots=True)
class End:
    reason: Reason
    message: str | None


class Arrivals:
    """What has come and is not taken yet, between whoever pushes and the producer."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._waiting: deque[Piece | End] = deque()
        self.ids: list[int] = []  # that have come
        self.over = False

    def add(self, *some: Piece | End) -> None:
        with self._exchange.progress:
            self._waiting.extend(some)
            self._exchange.progress.notify_all()

    def next(self) -> Piece | End:
        """Waits for it. What has come before the stream is closed is taken all the same."""
        exchange = self._exchange
        with exchange.progress:
            exchange.progress.wait_for(lambda: self._waiting or exchange.cancelled.is_set())
            return self._waiting.popleft() if self._waiting else End("cancelled", None)


class Following(Stream):
    """The events of a trace that is written elsewhere; `push` and `finish` may be called in any thread."""

    def __init__(self, exchange: Exchange) -> None:
        self._arrivals = arrivals = Arrivals(exchange)
        greedy = {"do_sample": False, "max_new_tokens": exchange.asked.room}
        super().__init__(exchange, lambda producer: read_along(exchange, producer, arrivals), greedy)

    def __enter__(self) -> "Following":
        return self

    @property
    def pushed(self) -> list[int]:
        """The ids that have come so far, taken or not."""
        return list(self._arrivals.ids)

    @property
    def finished(self) -> bool:
        """Whether nothing more can be pushed."""
        return self._arrivals.over

    @property
    def prompt_ids(self) -> Int[Tensor, "1 token"]:
        """Of the prompt that is read."""
        return self._exchange.asked.inputs["input_ids"]

    def push(self, ids: Sequence[int], log_probs: Sequence[float | None] | None = None) -> None:
        """Takes the next ids, and their log-probs where the server tells them; returns at once.

        Raises `PromptError` for ids that are none of the model's, that its context has no room for, or that come too late.
        """
        asked, arrivals = self._exchange.asked, self._arrivals
        check_ids(asked.model, ids, OTHER)
        if arrivals.over:
            raise PromptError("The trace has ended already; follow the next one by itself.")
        if len(arrivals.ids) + len(ids) > asked.room:
            raise PromptError(
                f"The trace has more than {asked.room} tokens, which is what our copy's context leaves after the prompt; "
                "the rest is not attributed."
            )
        if log_probs is not None and len(log_probs) != len(ids):
            raise PromptError(
                f"There are {len(log_probs)} log-probs for {len(ids)} ids; expected one for each."
            )
        arrivals.ids.extend(ids)
        now = time.perf_counter()
        told = [None] * len(ids) if log_probs is None else log_probs
        arrivals.add(*(Piece(int(each), log_prob, now) for each, log_prob in zip(ids, told, strict=True)))

    def finish(self, reason: Reason, message: str | None = None) -> None:
        """Nothing more comes, for this reason; a `message` says as an `Error` event what failed. Once is enough."""
        if not self._arrivals.over:
            self._arrivals.over = True
            self._arrivals.add(End(reason, message))


def read_along(exchange: Exchange, producer: Producer, arrivals: Arrivals) -> Reason:
    """Hands ids on as they come, and reads them before a span of theirs is attributed."""
    along = Along(exchange.asked.model, exchange.asked.inputs)
    producer.begin()
    producer.catch_up = lambda: along.read(exchange.ids)
    while isinstance(piece := arrivals.next(), Piece):
        told = None if piece.log_prob is None else Likely(piece.log_prob, ())
        producer.take(piece.token_id, told, piece.at)
        if len(exchange.ids) - along.count >= MOST_UNREAD:
            along.read(exchange.ids)
    if piece.message is not None:
        exchange.fail(piece.message)
    return piece.reason
