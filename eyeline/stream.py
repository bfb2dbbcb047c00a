"""Ties the method into one iterator of events: decode, cut into spans, attribute each span while the next is written.

Two threads stand behind a stream. The producer decodes and cuts the text into spans; the worker turns each finished
span into an attribution. Decoding waits for the worker only when the captured steps that are not yet attributed
exceed `pending_bytes`.
"""

import atexit
import contextlib
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

import eyeline
from eyeline.ablation import Method, fill_pixels, read_trace, tokens_filled
from eyeline.attention import AttentionCapture
from eyeline.errors import EyelineError, PromptError, RegionError
from eyeline.estimator import Estimator, check_model, estimator_for, is_quantised
from eyeline.events import Done, Error, Event, Grid, ImageInfo, Reason, SpanAttribution, Start, Text
from eyeline.fills import FILLS
from eyeline.generation import LEFT_OUT, check_options, segmenter, stop_strings
from eyeline.images import Picture, open_images
from eyeline.kept_games import Games, Joint
from eyeline.model import Inputs, Model, Prompt, rope_deltas_kept
from eyeline.reader import Reader
from eyeline.regions import Regions, check_source, regions_for
from eyeline.spans import Segmenter, Span
from eyeline.targets import Target, tokens_of

PENDING_BYTES = 64 * 2**20
_changing = threading.Lock()  # guards what belongs to the process: torch's number of threads


@dataclass(frozen=True, slots=True)
class Hidden:
    """Regions that the model is not to see while it answers; `grids` are those of the stream they come from."""

    grids: tuple[Grid, ...]
    regions: tuple[int, ...]
    method: Method


def stream(
    model: Model,
    images: Picture | Sequence[Picture],
    prompt: Prompt,
    *,
    estimator: str | Path | Estimator | None = None,
    regions: str | Path | Sequence[str | Path] = "native",
    max_new_tokens: int | None = None,
    temperature: float | int | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    pending_bytes: int = PENDING_BYTES,
    hidden: Hidden | None = None,
    **generation: Any,
) -> "Stream":
    """Generates an answer and yields events while it is written: `Start`, then `Text`s and `SpanAttribution`s, then `Done`.

    `estimator` is a folder or an `Estimator`; by default the one that lies in the model's own folder, and without one
    the effects are attention shares. `temperature=0` is greedy; `seed` makes sampling repeatable; options left out
    come from the model's generation config; `generation` holds further options of `hf.generate` (`top_p`, `top_k`,
    `repetition_penalty`, ...). `hidden` regions of an earlier stream are hidden all the while, and its regions are
    shown. A prompt of several turns may have no images: then text alone comes. Raises `ImageError`, `PromptError`,
    `RegionError`, `EstimatorError` or `UnsupportedModelError` at once for what cannot work; what fails later is an
    `Error` event.
    """
    stops = [stop] if isinstance(stop, str) else list(stop)
    stops += stop_strings(model, generation.pop("stop_strings", None))
    check_options(model, generation)
    state = _prepare(model, images, prompt, estimator, regions, stops, pending_bytes, hidden)
    room = model.context_length - state.prompt_tokens
    if max_new_tokens is not None and not 0 < max_new_tokens <= room:
        raise PromptError(
            f"max_new_tokens is {max_new_tokens}; expected 1 to {room}, "
            "what the model's context leaves after the prompt."
        )
    if temperature is not None:
        if not temperature >= 0:
            raise PromptError(f"The temperature is {temperature}; expected 0 (greedy) or more.")
        sampling = {"do_sample": True, "temperature": float(temperature)} | generation
        generation = sampling if temperature else generation | {"do_sample": False}
    generation |= {"max_new_tokens": max_new_tokens or room, **LEFT_OUT}
    rng = _generator(model.device, seed)
    return Stream(state, lambda capture: _generate(state, capture, rng, generation))


def attribute(
    model: Model,
    images: Picture | Sequence[Picture],
    prompt: str,
    text: str | Sequence[int],
    *,
    estimator: str | Path | Estimator | None = None,
    regions: str | Path | Sequence[str | Path] = "native",
) -> "Stream":
    """The events of a given trace, as if the model had written it: one teacher-forced pass instead of decoding.

    `text` is what follows the prompt, markers included, or its token ids. The same ids give the same events as
    `stream`, up to rounding. Raises as `stream` does.
    """
    state = _prepare(model, images, prompt, estimator, regions, (), sys.maxsize)
    if isinstance(text, str):
        text = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [int(token_id) for token_id in text]
    room = model.context_length - state.prompt_tokens
    if not 0 < len(ids) <= room:
        raise PromptError(
            f"The text to attribute has {len(ids)} tokens; expected 1 to {room}, "
            "what the model's context leaves after the prompt."
        )
    entries = model.hf.get_input_embeddings().num_embeddings
    if not 0 <= min(ids) <= max(ids) < entries:
        raise PromptError(f"The token ids reach from {min(ids)} to {max(ids)}; expected 0 to {entries - 1}.")
    return Stream(state, lambda capture: _teacher_force(state, capture, ids))


class Stream(Iterator[Event]):
    """The events of one generation, in order; a context manager. `close` ends generation within a token.

    After `close` the iterator still yields what is on its way, and `Done` last. Leaving the context also waits until
    the model is free again. A stream that is dropped ends by itself.
    """

    def __init__(self, state: "_State", produce: Callable[["AttentionCapture | _NoCapture"], Reason]) -> None:
        self._state = state
        self._held: deque[Event] = deque()  # events that overtook `Start`
        self._started = self._over = False
        self._threads = _start_threads(state, produce)

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
            event = self._state.events.get()
            if self._started or isinstance(event, Start):
                self._started = True
                return event
            self._held.append(event)

    @property
    def ids(self) -> list[int]:
        """The token ids generated so far."""
        return list(self._state.ids)

    @property
    def games(self) -> Games:
        """What is kept of the spans attributed so far."""
        return self._state.games

    def joint(self, target: Target | Any, regions: Sequence[int] = ()) -> Joint:
        """What hiding some regions together would do to a span, some words or a range of characters that are there already.

        `target` is a span's index, words that stand in the text once, characters [start, end) of all text, or a JSON field of
        the answer (`$.total`). No pass through the model is made. Raises `DataError` for a target that is none or is not
        attributed yet, `RegionError` for a region that is none.
        """
        return self._state.games.joint(tokens_of(target, self._state.told), regions)

    def close(self) -> None:
        self._state.cancel()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for thread in self._threads:
            thread.join()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # raised in __init__, before there was a state
            self.close()


@dataclass(eq=False)
class _State:
    """What the two threads and the reader of one stream share."""

    model: Model
    inputs: Inputs  # of the prompt
    pictures: list
    estimator: Estimator | None
    regions: str | Path | Sequence[str | Path]
    segmenter: Segmenter
    pending_bytes: int
    hidden: Hidden | None
    events: "queue.SimpleQueue[Event]" = field(default_factory=queue.SimpleQueue)
    work: "queue.SimpleQueue[_Job | None]" = field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: threading.Condition = field(default_factory=threading.Condition)  # of the worker
    started: bool = False  # `Start` is out; the worker's own
    waiting: int = 0  # jobs handed to the worker and not done yet; guarded by `progress`
    ids: list[int] = field(default_factory=list)
    told: list[Text | SpanAttribution] = field(
        default_factory=list
    )  # texts and spans so far; the worker appends spans, the producer texts
    games: Games = field(default_factory=Games)
    times: list[float] = field(default_factory=list)  # when each token was there
    begun: float = 0.0  # when decoding began, after the prompt had been read
    stalled_s: float = 0.0
    reason: Reason = "error"

    @property
    def prompt_tokens(self) -> int:
        return self.inputs["input_ids"].shape[1]

    def hand_over(self, job: "_Job") -> None:
        with self.progress:
            self.waiting += 1
        self.work.put(job)

    def tell(self, event: Text | SpanAttribution) -> None:
        self.told.append(event)
        self.events.put(event)

    def start(self, regions: tuple[Grid, ...]) -> None:
        """Puts the `Start` event, unless it is out already."""
        if not self.started:
            self.started = True
            self.events.put(_start(self, regions))

    def cancel(self) -> None:
        self.cancelled.set()
        with self.progress:
            self.progress.notify_all()


@dataclass(frozen=True, eq=False)
class _Job:
    """A span to attribute, or, without one, the image to read; `mark` is a CUDA event to wait for.

    `early`: the vision tower has seen the image, so that its regions can be found while the text model reads it.
    """

    capture: "AttentionCapture | _NoCapture"
    span: Span | None
    mark: Any
    early: bool = False


class _NoCapture:
    """Stands in for a capture where there is no image to attribute to."""

    pending_bytes = 0

    def mark(self) -> None:
        return None


def _start_threads(
    state: _State, produce: Callable[["AttentionCapture | _NoCapture"], Reason]
) -> tuple[threading.Thread, threading.Thread]:
    """Starts worker and producer.

    torch's number of threads belongs to each thread, but setting it also changes what new threads start with. The
    worker lowers it for itself, the producer sets it back, and no other stream starts in between.
    """
    handshake: queue.SimpleQueue[int] = queue.SimpleQueue()

    def work() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the other cores belong to decoding
        handshake.put(threads)
        try:
            _work(state)
        except Exception as error:
            state.cancel()
            state.events.put(Error(f"Attribution failed, generation ends: {_sentence(error)}"))
        finally:
            state.start(())  # where the prompt could not be read
            state.events.put(_done(state))
            atexit.unregister(end)

    def decode() -> None:
        torch.get_num_threads()  # at its first use a thread takes the process's number, which another stream may be changing
        torch.set_num_threads(threads)
        handshake.put(threads)
        _produce(state, produce)

    def end() -> None:
        """At exit: Python would kill the threads inside torch, which aborts the process."""
        state.cancel()
        producer.join()
        worker.join()

    worker = threading.Thread(target=work, name="eyeline-worker", daemon=True)
    producer = threading.Thread(target=decode, name="eyeline-producer", daemon=True)
    atexit.register(end)
    with _changing:
        worker.start()
        threads = handshake.get()
        producer.start()
        handshake.get()
    return worker, producer


# --- the producer


def _produce(state: _State, produce: Callable[[AttentionCapture | _NoCapture], Reason]) -> None:
    """Runs the model until it is done, whatever happens, and tells the worker that nothing more comes."""
    model = state.model
    try:
        with _on(model.device), rope_deltas_kept(model), _hiding(state), _capture(state) as capture:
            state.reason = produce(capture)
            for event in state.segmenter.finish():
                _pass_on(state, capture, event)
    except Exception as error:
        lost = f"Generation failed after {len(state.ids)} tokens"
        state.events.put(
            Error(str(error) if isinstance(error, EyelineError) else f"{lost}: {_sentence(error)}")
        )
    finally:
        state.work.put(None)


def _capture(state: _State) -> contextlib.AbstractContextManager[AttentionCapture | _NoCapture]:
    if not state.pictures:
        return contextlib.nullcontext(_NoCapture())
    hidden = state.hidden
    knocked_out = None if hidden is None or hidden.method != "attention" else _cells(hidden)
    layers = None if state.estimator is None else state.estimator.layers(_count_layers(state.model))
    return AttentionCapture(
        state.model, state.inputs, hidden=knocked_out, layers=layers,
        seen=lambda capture: state.hand_over(_Job(capture, None, capture.mark(), early=True)),
    )  # fmt: skip


def _count_layers(model: Model) -> int:
    return len(model.adapter.layers(model.hf))


def _hiding(state: _State) -> contextlib.AbstractContextManager[None]:
    """Fills hidden visual tokens while the model runs; what else can be hidden is so in the inputs or in the capture."""
    if state.hidden is None or state.hidden.method != "tokens":
        return contextlib.nullcontext()
    return tokens_filled(state.model, state.inputs, _cells(state.hidden))


def _pass_on(state: _State, capture: AttentionCapture | _NoCapture, event: Text | Span) -> None:
    if isinstance(event, Text):
        state.tell(event)
    else:
        state.hand_over(_Job(capture, event, capture.mark()))


def _token(state: _State, capture: AttentionCapture | _NoCapture, token_id: int) -> None:
    """Takes one token into the text; waits for the worker where too much is pending."""
    state.ids.append(token_id)
    state.times.append(time.perf_counter())
    for event in state.segmenter.push(token_id):
        _pass_on(state, capture, event)
    if capture.pending_bytes > state.pending_bytes:
        begun = time.perf_counter()
        with state.progress:
            state.progress.wait_for(
                lambda: (
                    not state.waiting
                    or capture.pending_bytes <= state.pending_bytes
                    or state.cancelled.is_set()
                )
            )
        state.stalled_s += time.perf_counter() - begun


def _generate(
    state: _State, capture: AttentionCapture | _NoCapture, rng: torch.Generator, generation: dict[str, Any]
) -> Reason:
    reason: Reason = "error"

    def decode(hf, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs):
        """`GenerationMixin._sample` for one sequence, with a random generator of its own.

        Same calls in the same order, so the same ids as `generate` after `torch.manual_seed`.
        """
        nonlocal reason
        ends = _ending(stopping_criteria)
        outputs = hf._prefill(input_ids, generation_config, kwargs)
        state.hand_over(_Job(capture, None, capture.mark()))
        state.begun = time.perf_counter()
        while True:
            kwargs = hf._update_model_kwargs_for_generation(outputs, kwargs, is_encoder_decoder=False)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
            scores = logits_processor(input_ids, logits)
            if generation_config.do_sample:
                token = torch.multinomial(scores.softmax(-1), 1, generator=rng)
            else:
                token = scores.argmax(-1, keepdim=True)
            input_ids = torch.cat([input_ids, token], dim=-1)
            token_id = int(token)
            _token(state, capture, token_id)
            if state.segmenter.stopped:
                reason = "stop"
            elif ends(input_ids, token_id):
                reason = _end(state.ids, generation_config)
            elif state.cancelled.is_set():
                reason = "cancelled"
            else:
                prepared = hf.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **kwargs)
                outputs = hf(**prepared, return_dict=True)
                continue
            return input_ids

    state.model.hf.generate(**state.inputs, **generation, custom_generate=decode)
    return reason


def _ending(criteria: Sequence[Any]) -> Callable[[Tensor, int], bool]:
    """Whether a sequence ends with its last token.

    The two criteria that every generation has cost a small model one token in twenty as tensors; they are numbers here.
    """
    from transformers.generation.stopping_criteria import (
        EosTokenCriteria,
        MaxLengthCriteria,
        StoppingCriteriaList,
    )

    longest = min(
        (each.max_length for each in criteria if type(each) is MaxLengthCriteria), default=sys.maxsize
    )
    last = {
        end
        for each in criteria
        if type(each) is EosTokenCriteria
        for end in each.eos_token_id.flatten().tolist()
    }
    others = StoppingCriteriaList(
        each for each in criteria if type(each) not in (EosTokenCriteria, MaxLengthCriteria)
    )

    def ends(input_ids: Tensor, token_id: int) -> bool:
        if token_id in last or input_ids.shape[1] >= longest:
            return True
        return bool(others) and bool(others(input_ids, None).all())  # pyright: ignore[reportArgumentType]

    return ends


def _teacher_force(state: _State, capture: AttentionCapture | _NoCapture, ids: list[int]) -> Reason:
    read_trace(state.model, state.inputs, torch.tensor(ids))
    state.hand_over(_Job(capture, None, capture.mark()))
    state.begun = time.perf_counter()
    for token_id in ids:
        if state.cancelled.is_set():
            return "cancelled"
        _token(state, capture, token_id)
    return _end(ids, state.model.hf.generation_config, length=len(ids))


def _end(ids: Sequence[int], config: Any, length: int | None = None) -> Reason:
    """Why a sequence ends that was not cut at a stop string; `stop`: by a criterion of the caller's."""
    ends = config.eos_token_id
    if ids[-1] in (ends if isinstance(ends, list) else [ends]):
        return "eos"
    return "length" if len(ids) == (length or config.max_new_tokens) else "stop"


# --- the worker


def _work(state: _State) -> None:
    """Attributes spans as they come; what fails becomes an `Error` event, and the next span is tried."""
    regions: Regions | None = None
    reader: Reader | None = None
    device = state.model.device
    side = torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else contextlib.nullcontext()
    with torch.inference_mode(), side:
        while (job := state.work.get()) is not None:
            try:
                if job.mark is not None:
                    job.mark.wait()
                if isinstance(job.capture, _NoCapture):
                    if job.span is None:
                        state.start(())
                        state.events.put(Error("There is no image: the answer comes without attribution."))
                elif job.early:
                    regions = _regions(state, job.capture)
                    state.start(regions.grids)
                elif job.span is None and regions is not None:
                    reader = Reader(state.model, state.inputs, job.capture, regions, state.estimator)
                    reader.measure_leak(state.cancelled.is_set)
                elif reader is not None:
                    span = job.span
                    read = reader.read(span, state.ids[span.start : span.end])
                    if read.game is not None:
                        state.games.add(span.start, read.game)
                    state.tell(reader.event(span, read, time.perf_counter() - state.times[span.end - 1]))
            except Exception as error:
                state.start(())  # where the images could not be read
                lost = "all attributions" if job.span is None else f"the attribution of span {job.span.index}"
                state.events.put(Error(f"Lost {lost}, generation goes on: {_sentence(error)}"))
            finally:
                if job.span is not None and not isinstance(job.capture, _NoCapture):
                    job.capture.release(job.span.end)
                with state.progress:
                    state.waiting -= 1
                    state.progress.notify_all()


def _regions(state: _State, capture: AttentionCapture) -> Regions:
    assert capture.vision_features is not None, "the vision tower has seen the images"
    if state.hidden is None:
        return regions_for(state.pictures, capture.grids, capture.vision_features, state.regions)
    grids = tuple(map(torch.tensor, state.hidden.grids))
    return Regions(grids, 1 + max(int(grid.max()) for grid in grids))


def _start(state: _State, regions: tuple[Grid, ...]) -> Start:
    model = state.model
    merge = model.adapter.merge_size(model.hf)
    grids = state.inputs["image_grid_thw"].tolist() if state.pictures else []
    images = tuple(
        ImageInfo(picture.width, picture.height, rows // merge, cols // merge)
        for picture, (_, rows, cols) in zip(state.pictures, grids, strict=True)
    )
    if not regions:  # the images could not be read: each is one region, which views and saved runs can show
        regions = tuple(((number,) * info.cols,) * info.rows for number, info in enumerate(images))
    name = None
    if state.estimator is not None:
        name = state.estimator.id + (" (calibration not verified)" if is_quantised(model) else "")
    estimator = state.estimator
    return Start(
        eyeline.__version__,
        model.name,
        name,
        "attention" if estimator is None else "nats",
        images,
        regions,
        hiding=None if estimator is None else estimator.hiding,
        level="none" if estimator is None else "fitted",
    )


def _done(state: _State) -> Done:
    seconds = (state.times[-1] - state.begun) if len(state.times) > 1 else 0.0
    return Done(
        answer=state.segmenter.answer,
        prompt_tokens=state.prompt_tokens,
        tokens=len(state.ids),
        tokens_per_s=round(len(state.ids) / seconds, 2) if seconds > 0 else 0.0,
        stalled_s=round(state.stalled_s, 4),
        reason=state.reason,
    )


# --- plain values


def _prepare(
    model: Model,
    images: Picture | Sequence[Picture],
    prompt: Prompt,
    estimator: str | Path | Estimator | None,
    regions: str | Path | Sequence[str | Path],
    stops: Sequence[str],
    pending_bytes: int,
    hidden: Hidden | None = None,
) -> _State:
    """What both threads start from; all that a user can get wrong about it is found here."""
    pictures = open_images(images)
    inputs = model.inputs(pictures, prompt)
    if hidden is not None:
        shapes = [(len(grid), len(grid[0])) for grid in hidden.grids]
        if shapes != [(grid.rows, grid.cols) for grid in model.image_grids(inputs)]:
            raise RegionError(
                "The hidden regions belong to other images; give those of a stream of the same images."
            )
        if hidden.method in FILLS:
            inputs = fill_pixels(model, inputs, _cells(hidden), hidden.method)
    if isinstance(estimator, Estimator):
        check_model(estimator, model)
        estimator = estimator.to(model.device)
    else:
        estimator = estimator_for(model, estimator)
    check_source(pictures, model.image_grids(inputs), regions, model.device)
    follow = segmenter(model, opened=model.prompt_opens_thinking(inputs["input_ids"]), stop=stops)
    return _State(model, inputs, pictures, estimator, regions, follow, pending_bytes, hidden)


def _cells(hidden: Hidden) -> Bool[Tensor, " patch"]:
    """Which visual tokens are hidden."""
    labels = torch.cat([torch.tensor(grid).flatten() for grid in hidden.grids])
    return torch.isin(labels, torch.tensor(hidden.regions, dtype=labels.dtype))


def _generator(device: torch.device, seed: int | None) -> torch.Generator:
    rng = torch.Generator(device)
    try:
        rng.seed() if seed is None else rng.manual_seed(seed)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise PromptError(f"The seed is {seed}; expected a whole number of 63 bits.") from error
    return rng


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Makes a GPU the current one of this thread: events are recorded on the current one's stream."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _sentence(error: Exception) -> str:
    if isinstance(error, EyelineError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0].rstrip(": ")
