"""The thread that decodes: it opens the capture, cuts the ids into spans as they come, and hands those to the worker."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from eyeline.ablation import tokens_filled
from eyeline.capture import AttentionCapture, NoCapture
from eyeline.decoding import Likely
from eyeline.errors import EyelineError
from eyeline.events import Reason, Text
from eyeline.exchange import Exchange, Job, sentence
from eyeline.features import AT_ONCE, needs_outputs
from eyeline.model import rope_deltas_kept
from eyeline.spans import Span


class Producer:
    """Takes the ids of one stream (a `decoding.Taker`)."""

    def __init__(self, exchange: Exchange, capture: AttentionCapture | NoCapture) -> None:
        self._exchange, self._capture = exchange, capture
        self._handed = 0  # tokens that the worker has been told of
        self.catch_up: Callable[[], object] = lambda: (
            None
        )  # before a span is handed over: it must have been read

    def begin(self) -> None:
        self._exchange.hand_over(Job(self._capture, None, self._capture.mark()))
        self._exchange.begin()

    def take(self, token_id: int, likely: Likely | None = None, at: float | None = None) -> None:
        """Takes one token into the text; waits for the worker where too much is pending. `at`: when it was there."""
        self._exchange.add(token_id, likely, at)
        for event in self._exchange.segmenter.push(token_id):
            self._pass_on(event)
        if len(self.ids) - self._handed >= AT_ONCE:
            self.catch_up()
            self.known(self.ids)
        self._exchange.keep_pace(self._capture)

    def known(self, ids: Sequence[int]) -> None:
        """Told the first ids of the text, taken or still to come, once the model has worked out what predicts each.

        So the worker reads many tokens together, wherever their spans end.
        """
        if not isinstance(self._capture, NoCapture) and len(ids) > self._handed:
            ahead = self._handed, ids[self._handed :]
            self._exchange.hand_over(Job(self._capture, None, self._capture.mark(), ahead=ahead))
            self._handed = len(ids)

    def finish(self) -> None:
        for event in self._exchange.segmenter.finish():
            self._pass_on(event)

    @property
    def ids(self) -> list[int]:
        return self._exchange.ids

    @property
    def stopped(self) -> bool:
        return self._exchange.segmenter.stopped

    @property
    def cancelled(self) -> bool:
        return self._exchange.cancelled.is_set()

    def _pass_on(self, event: Text | Span) -> None:
        if isinstance(event, Text):
            self._exchange.pass_on(event)
        else:
            self.catch_up()
            self._exchange.hand_over(Job(self._capture, event, self._capture.mark()))
            self._handed = max(self._handed, event.end)


def produce(exchange: Exchange, write: Callable[[Producer], Reason]) -> None:
    """Lets `write` run the model until it is done, whatever happens, and tells the worker that nothing more comes."""
    model = exchange.asked.model
    try:
        with (
            _on(model.device), rope_deltas_kept(model), _hiding(exchange), _capturing(exchange) as capture
        ):  # fmt: skip
            producer = Producer(exchange, capture)
            exchange.reason = write(producer)
            producer.finish()
    except Exception as error:
        lost = (
            "" if isinstance(error, EyelineError) else f"Generation failed after {len(exchange.ids)} tokens: "
        )
        exchange.fail(lost + sentence(error))
    finally:
        exchange.work.put(None)


def _capturing(exchange: Exchange) -> contextlib.AbstractContextManager[AttentionCapture | NoCapture]:
    asked = exchange.asked
    if not asked.pictures:
        return contextlib.nullcontext(NoCapture())
    hidden = asked.hidden
    knocked_out = None if hidden is None or hidden.method != "attention" else hidden.cells
    count = len(asked.model.adapter.layers(asked.model.hf))
    return AttentionCapture(
        asked.model, asked.inputs, hidden=knocked_out,
        layers=None if asked.estimator is None else asked.estimator.layers(count),
        outputs=asked.estimator is not None and needs_outputs(asked.estimator.kinds),
        seen=lambda capture: exchange.hand_over(Job(capture, None, capture.mark(), early=True)),
    )  # fmt: skip


def _hiding(exchange: Exchange) -> contextlib.AbstractContextManager[None]:
    """Fills hidden visual tokens while the model runs; what else can be hidden is so in the inputs or in the capture."""
    asked = exchange.asked
    if asked.hidden is None or asked.hidden.method != "tokens":
        return contextlib.nullcontext()
    return tokens_filled(asked.model, asked.inputs, asked.hidden.cells)


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Makes a GPU the current one of this thread: events are recorded on the current one's stream."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
