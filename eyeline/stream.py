"""Ties the method into one iterator of events: decode, cut into spans, attribute each span while the next is written.

Two threads stand behind a stream (threads.py). The producer (producer.py) decodes and cuts the text into spans; the worker
(worker.py) turns each finished span into an attribution. Decoding waits for the worker only when the captured steps that
are not yet attributed exceed `pending_bytes`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from eyeline.asked import Asked, Hidden, check_ids, prepare, random_generator
from eyeline.boxes import Evidence, Of, evidence_sets
from eyeline.decoding import Likely, decode, follow
from eyeline.errors import PromptError
from eyeline.estimator import Estimator
from eyeline.events import Done, Event, Grid, Reason, RestsOn, Start
from eyeline.exchange import Exchange
from eyeline.generation import LEFT_OUT, check_options, segmenter, stop_strings
from eyeline.images import Picture
from eyeline.kept_games import Games, Joint
from eyeline.model import Model, Prompt
from eyeline.producer import Producer, produce
from eyeline.spans import Segmenter
from eyeline.targets import Target, tokens_of
from eyeline.threads import start_threads
from eyeline.worker import work

PENDING_BYTES = 64 * 2**20


def stream(
    model: Model,
    images: Picture | Sequence[Picture],
    prompt: Prompt,
    *,
    estimator: str | Path | Estimator | None = None,
    regions: str | Path | Sequence[str | Path] = "native",
    max_new_tokens: int | None = None,
    temperature: float | int | None = None,
    top_p: float | int | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    pending_bytes: int = PENDING_BYTES,
    hidden: Hidden | None = None,
    sources: bool = True,
    measure_whole: bool = False,
    top_logprobs: int | None = None,
    **generation: Any,
) -> "Stream":
    """Generates an answer and yields events while it is written: `Start`, then `Text`s and `SpanAttribution`s, then `Done`.

    `estimator`: a folder, an id on the Hub or an `Estimator`, by default your own for the model, else the one in its folder, else
    the general one; for `attention` the effects are attention shares. `regions`: a source of regions or a file of your own, one
    for all images or one for each. `max_new_tokens`: by default what the context allows. `temperature`: 0 is greedy. `seed` makes
    sampling repeatable. `stop`: texts that generation ends before. `pending_bytes`: captured steps that may wait for attribution
    before decoding does. `hidden`: regions of an earlier stream that the model is not to see; its regions are shown. `sources`:
    read earlier text too, for what each span takes from it and what the answer rests on through it. `measure_whole`: read the
    text once more without its images, so that `whole_image` is measured. `top_logprobs`: keep how
    likely each token was, and so many of the likeliest in its place (`Stream.likely`). `generation`: any other option of
    `hf.generate` (`repetition_penalty`, ...). What is left out comes from the model's generation config.

    A prompt of several turns may have no images: then text alone comes. Raises `ImageError`, `PromptError`, `RegionError`,
    `EstimatorError` or `UnsupportedModelError` at once for what cannot work; what fails later is an `Error` event.
    """
    generation |= {name: value for name, value in (("top_p", top_p), ("top_k", top_k)) if value is not None}
    stops = [stop] if isinstance(stop, str) else list(stop)
    stops += stop_strings(model, generation.pop("stop_strings", None))
    check_options(model, generation)
    asked = prepare(model, images, prompt, estimator, regions, hidden, sources, measure_whole)
    if max_new_tokens is not None and not 0 < max_new_tokens <= asked.room:
        raise PromptError(
            f"max_new_tokens is {max_new_tokens}; expected 1 to {asked.room}, "
            "what the model's context leaves after the prompt."
        )
    if temperature is not None:
        if not temperature >= 0:
            raise PromptError(f"The temperature is {temperature}; expected 0 (greedy) or more.")
        sampling = {"do_sample": True, "temperature": float(temperature)} | generation
        generation = sampling if temperature else generation | {"do_sample": False}
    generation |= {"max_new_tokens": max_new_tokens or asked.room, **LEFT_OUT}
    rng = random_generator(model.device, seed)
    exchange = Exchange(asked, _segmenter(asked, stops), pending_bytes)
    own = {name: value for name, value in generation.items() if name not in LEFT_OUT} | {
        "stop_strings": stops
    }
    return Stream(
        exchange,
        lambda producer: decode(model, asked.inputs, producer, rng, generation, top_logprobs),
        own,
    )


def attribute(
    model: Model,
    images: Picture | Sequence[Picture],
    prompt: str,
    text: str | Sequence[int],
    *,
    estimator: str | Path | Estimator | None = None,
    regions: str | Path | Sequence[str | Path] = "native",
    sources: bool = True,
    measure_whole: bool = False,
) -> "Stream":
    """The events of a given trace, as if the model had written it: teacher-forced passes over it instead of decoding.

    `text` is what follows the prompt, markers included, or its token ids. The same ids give the same events as `stream`, up to
    rounding. `estimator`, `regions`, `sources` and `measure_whole` as there. However long the text is, no more steps are kept
    than PENDING_BYTES and those of a pass. Raises as `stream` does.
    """
    asked = prepare(model, images, prompt, estimator, regions, sources=sources, measure_whole=measure_whole)
    if isinstance(text, str):
        text = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [int(token_id) for token_id in text]
    if not 0 < len(ids) <= asked.room:
        raise PromptError(
            f"The text to attribute has {len(ids)} tokens; expected 1 to {asked.room}, "
            "what the model's context leaves after the prompt."
        )
    check_ids(model, ids)
    exchange = Exchange(asked, _segmenter(asked, ()), PENDING_BYTES)
    greedy = {"do_sample": False, "max_new_tokens": asked.room}
    return Stream(exchange, lambda producer: follow(model, asked.inputs, producer, ids), greedy)


def _segmenter(asked: Asked, stops: Sequence[str]) -> Segmenter:
    opened = asked.model.prompt_opens_thinking(asked.inputs["input_ids"])
    return segmenter(asked.model, opened=opened, stop=stops)


class Stream(Iterator[Event]):
    """The events of one generation, in order; a context manager. `close` ends generation within a token.

    After `close` the iterator still yields what is on its way, and `Done` last. Leaving the context also waits until
    the model is free again. A stream that is dropped ends by itself.
    """

    def __init__(
        self, exchange: Exchange, write: Callable[[Producer], Reason], generation: Mapping[str, Any]
    ) -> None:
        self._exchange = exchange
        self.generation = (
            generation  # options of `hf.generate` that make such a trace again, `stop_strings` among them
        )
        self._held: deque[Event] = deque()  # events that overtook `Start`
        self._started = self._over = False
        self._threads = start_threads(
            lambda: work(exchange), lambda: produce(exchange, write), exchange.cancel
        )  # the stream itself is in none of these, so that it ends when it is dropped

    def __next__(self) -> Event:
        if self._over:
            raise StopIteration
        try:
            event = self._next()
        except KeyboardInterrupt:
            self.close()
            raise
        self._over = isinstance(event, Done)
        return event

    def _next(self) -> Event:
        if self._started and self._held:
            return self._held.popleft()
        while True:
            event = self._exchange.events.get()
            if self._started or isinstance(event, Start):
                self._started = True
                return event
            self._held.append(event)

    @property
    def ids(self) -> list[int]:
        """The token ids generated so far."""
        return list(self._exchange.ids)

    @property
    def events(self) -> list[Event]:
        """All events that are there already, whether they were read or not; errors are left out."""
        return self._exchange.so_far

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The regions, one grid of labels an image, once `Start` is there; nothing before."""
        start = self._exchange.opening
        return () if start is None else start.regions

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """What the model was given."""
        return self._exchange.asked.inputs

    @property
    def likely(self) -> list[Likely]:
        """How likely each id was; nothing where `top_logprobs` did not ask for it."""
        return [each for each in self._exchange.likely[: len(self._exchange.ids)] if each is not None]

    @property
    def games(self) -> Games:
        """What is kept of the spans attributed so far."""
        return self._exchange.games

    def joint(self, target: Target | Any, regions: Sequence[int] = ()) -> Joint:
        """What hiding some regions together would do to a span, some words or a range of characters that are there already.

        `target` is a span's index, words that stand in the text once, characters [start, end) of all text, or a JSON field of
        the answer (`$.total`). No pass through the model is made. Raises `DataError` for a target that is none or is not
        attributed yet, `RegionError` for a region that is none.
        """
        return self._exchange.games.joint(tokens_of(target, self._exchange.passed_on), regions)

    def rests_on(self, sets: Sequence[Sequence[int]] | None = None) -> RestsOn:
        """What the answer so far rests on through the thinking: for every region alone, or for sets of them hidden together.

        No pass through the model is made. Raises `DataError` where there is no answer yet, or earlier text was not
        read, `RegionError` for a region that is none.
        """
        return self._exchange.rests_on(sets)

    def evidence(self, of: Of = None) -> list[Evidence]:
        """Boxes and masks of what a span, by its index, or the answer rests on (`eyeline.boxes.Evidence`); by default of all.

        The answer's are there when the stream has ended. No pass through the model is made. Raises `DataError` where there is no
        such span, or nothing is known.
        """
        return evidence_sets(self.events, of)

    def close(self) -> None:
        self._exchange.cancel()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for thread in self._threads:
            thread.join()

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)  # None: raised in __init__, before there was one
        if exchange is not None:
            exchange.cancel()
