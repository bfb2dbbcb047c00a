"""What attribution costs against the length of the trace: Eyeline's own work while decoding, and rivals that run the model again.

One image, its reference trace over and over, cut off at each length and into spans as ever. Everything takes turns in one
process, each thread on one core. Seconds are of the CPU, so that nothing depends on how well a method shares cores; where
nothing else runs they are the wall's, but for `stream` with its two threads. All methods are given the same regions, and only
Eyeline's time includes finding them.

A small model hides what attribution costs a large one: its passes are hardly dearer than reading a span. So the same is
also timed on layers as wide as an 8B model's, with random weights, as many as the machine holds. There nothing is decoded,
which would take a second a token: the thread that attributes is timed on a trace that is teacher-forced.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen2VLImageProcessorPil, Qwen3VLConfig

from benchmarks.flops import QWEN3_VL_8B, SUBSETS
from benchmarks.flops import Setting as Large
from eyeline import Model, decoding, load
from eyeline import stream as streaming
from eyeline.ablation import METHODS, Method, by_span, hidden_patches
from eyeline.earlier import KINDS
from eyeline.errors import DataError
from eyeline.estimator import SETS, Estimator, Network
from eyeline.evaluation.baselines.hiding import fit_falls
from eyeline.evaluation.baselines.lrp import attn_lrp
from eyeline.evaluation.command_options import ESTIMATOR, MODEL, TABLE_AND_FIGURE
from eyeline.evaluation.evaluate import one_estimator
from eyeline.evaluation.meter import clock
from eyeline.evaluation.results import OURS, PLAIN, QUIET, new_figure, write_csv, write_png, writing
from eyeline.events import Done, Error
from eyeline.examples import Example, read_examples
from eyeline.exchange import Exchange
from eyeline.fingerprint import fingerprint
from eyeline.generation import LEFT_OUT, cut
from eyeline.images import open_image
from eyeline.model import Inputs, rope_deltas_kept
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.teacher_forcing import Along, teacher_force, trace_log_probs
from eyeline.training.collect import regions_of
from eyeline.training.weights import UNKNOWN, FitSettings

POSITIONS_AT_ONCE = 4096  # of a batch: bounds memory
WARM_UP = 50  # tokens of the trace that is run before any is timed


@dataclass(frozen=True, eq=False)
class Case:
    """A trace of one length with all that methods are given."""

    example: Example
    inputs: Inputs
    ids: Int[Tensor, " token"]
    spans: list[Span]
    regions: Regions
    estimator: Estimator
    hiding: Method
    positions: int  # of text that a method may run through the model at a time; more is sampled

    def writing(self) -> dict[str, Any]:
        """Options of `generate` with which the model writes this trace, whatever it would rather say."""
        prompt, ids = self.inputs["input_ids"].shape[1], self.ids.tolist()
        return {
            "max_new_tokens": len(ids),
            "prefix_allowed_tokens_fn": lambda _, written: [ids[len(written) - prompt]],
        }


@dataclass(frozen=True, slots=True)
class Timed:
    """What a whole trace takes; scaled up where only a share of the spans or of the ablated rows was run."""

    seconds: float
    measured: float = 1.0  # that share


@dataclass(frozen=True, slots=True)
class Row:
    """A method at one length, medians over rounds."""

    method: str
    tokens: int
    spans: int
    regions: int
    hiding: str  # how regions are hidden, where they are
    measured: float
    seconds: float  # for the trace
    ms_per_token: float
    over_eyeline: float  # ratio of the same round
    low: float  # quartiles of that ratio
    high: float
    over_added: (
        float | None
    )  # ratio to what `stream` takes beyond `generate`; None where that is nothing or was not timed


def time_generate(model: Model, case: Case) -> dict[str, Timed]:
    """Plain decoding, as long as the trace."""
    began = time.process_time()
    inputs = model.inputs(case.example.image, case.example.prompt)
    with rope_deltas_kept(model):
        written = model.hf.generate(**inputs, do_sample=False, **{**LEFT_OUT, **case.writing()})
    seconds = time.process_time() - began
    assert torch.equal(written[0, inputs["input_ids"].shape[1] :], case.ids)
    return {"generate": Timed(seconds)}


def time_stream(model: Model, case: Case) -> dict[str, Timed]:
    """Decoding with attribution, and of that, as `eyeline`, the thread that attributes: image, regions, every span."""
    began = time.process_time()
    with (
        _worker_timed() as seconds,
        model.stream(
            case.example.image, case.example.prompt, estimator=case.estimator, temperature=0, **case.writing()
        ) as stream,
    ):
        events = list(stream)
    whole = time.process_time() - began
    assert isinstance(events[-1], Done)
    assert events[-1].tokens == len(case.ids)
    assert not any(isinstance(event, Error) for event in events)
    return {"stream": Timed(whole), "eyeline": Timed(seconds[0])}


def time_attribute(model: Model, case: Case) -> dict[str, Timed]:
    """The thread that attributes alone, as `eyeline`: image, regions and every span of a trace that is given."""
    with (
        _worker_timed() as seconds,
        logits_left(),
        model.attribute(
            case.example.image,
            case.example.prompt,
            case.ids.tolist(),
            estimator=case.estimator,
            sources=False,
        ) as stream,
    ):
        events = list(stream)
    assert isinstance(events[-1], Done)
    assert not any(isinstance(event, Error) for event in events)
    return {"eyeline": Timed(seconds[0])}


class Telling(Along):
    """A trace that is given leaves the logits of its tokens behind, as decoding does, for the thread that attributes."""

    def _run(self, start: int, end: int) -> Tensor:
        states = super()._run(start, end)
        self._model.adapter.lm_head(self._model.hf)(states if start else states[:, -1:])
        return states


@contextmanager
def logits_left() -> Iterator[None]:
    decoding.Along = Telling
    try:
        yield
    finally:
        decoding.Along = Along


@contextmanager
def _worker_timed() -> Iterator[list[float]]:
    """CPU seconds of the thread that attributes, for each stream that ends in the block; waiting takes none."""
    seconds: list[float] = []
    work = streaming.work

    def timed(exchange: Exchange) -> None:
        try:
            work(exchange)
        finally:
            seconds.append(time.thread_time())  # of a thread that does nothing else

    streaming.work = timed
    try:
        yield seconds
    finally:
        streaming.work = work


def _now(model: Model) -> float:
    """CPU seconds of the process; of a model on CUDA the wall's, when all is done that was asked for."""
    return clock(model) if model.device.type == "cuda" else time.process_time()


def time_exhaustive(model: Model, case: Case) -> dict[str, Timed]:
    """The `exhaustive` baseline at its best: its rows, but the unablated one once, not once a batch."""
    timed, _ = _time_hiding(model, case, torch.eye(case.regions.count, dtype=torch.bool))
    return {"exhaustive": timed}


def time_regression(model: Model, case: Case) -> dict[str, Timed]:
    """The `regression-32` baseline, its rows at their best too. Falls of rows that were not run are others', for the fit."""
    rng = torch.Generator().manual_seed(0)
    drawn = torch.rand(SUBSETS, case.regions.count, generator=rng) < 0.5
    timed, falls = _time_hiding(model, case, drawn)
    began = _now(model)
    lengths = torch.tensor([span.end - span.start for span in case.spans])
    fit_falls(drawn, falls[:, torch.arange(SUBSETS) % falls.shape[1]], lengths)
    fitting = _now(model) - began
    return {f"regression-{SUBSETS}": replace(timed, seconds=timed.seconds + fitting)}


def _time_hiding(
    model: Model, case: Case, subsets: Bool[Tensor, "subset region"]
) -> tuple[Timed, Float[Tensor, "span run"]]:
    """What it takes to hide each subset, and the falls of those that were."""
    began = _now(model)
    with torch.inference_mode():
        trace = teacher_force(model, case.inputs, case.ids)
        forward, length = METHODS[case.hiding](model, trace, None)
        prepared = _now(model)
        some = subsets[evenly(len(subsets), case.positions // length - 1)]
        none = torch.zeros(1, case.regions.count, dtype=torch.bool)
        rows = hidden_patches(torch.cat([none, some]), case.regions.of_patch).to(trace.ids.device)
        log_probs = []
        for batch in rows.split(max(1, POSITIONS_AT_ONCE // length)):
            states = forward(batch)
            log_probs.append(trace_log_probs(model, states[:, -len(case.ids) :], case.ids))
        found = torch.cat(log_probs)
        falls = found[0] - found[1:]
        of_spans = by_span(falls, case.spans)
    ran = _now(model) - prepared
    share = len(rows) / (1 + len(subsets))
    return Timed(prepared - began + ran / share, share), of_spans.clone()


def time_attn_lrp(model: Model, case: Case) -> dict[str, Timed]:
    """The `attn-lrp` baseline: one forward pass, and a backward pass a span; only these are scaled up."""

    def run(spans: Sequence[Span]) -> float:
        began = _now(model)
        attn_lrp(model, case.inputs, case.ids, spans, case.regions)
        return _now(model) - began

    length = case.inputs["input_ids"].shape[1] + len(case.ids) - 1
    some = [case.spans[at] for at in evenly(len(case.spans), case.positions // length).tolist()]
    share = len(some) / len(case.spans)
    seconds = run(some)
    if share < 1:
        forward = run([])
        seconds = forward + (seconds - forward) / share
    return {"attn-lrp": Timed(seconds, share)}


Timer = Callable[[Model, Case], dict[str, Timed]]
TIMERS: tuple[Timer, ...] = (time_generate, time_stream, time_exhaustive, time_attn_lrp, time_regression)
WITHOUT_DECODING: tuple[Timer, ...] = (time_attribute, time_exhaustive, time_attn_lrp)


def evenly(count: int, most: int) -> Int[Tensor, " some"]:
    """Indices of at most so many of `count`, but one at least, spread evenly."""
    return torch.linspace(0, count - 1, max(1, min(count, most))).round().long()


def make_case(
    model: Model, example: Example, tokens: int, estimator: Estimator, hiding: Method, positions: int
) -> Case:
    """Raises `DataError` for an example without a trace and for a length that does not fit the context."""
    picture = open_image(example.images[0])
    inputs = model.inputs(picture, example.prompt)
    room = model.context_length - inputs["input_ids"].shape[1]
    if not example.trace or not 0 < tokens <= room:
        raise DataError(
            f"The example {example.id!r} gives no trace of {tokens} tokens; expected one with a reference trace, and 1 to "
            f"{room} tokens, what the model's context leaves after the prompt."
        )
    opened = model.prompt_opens_thinking(inputs["input_ids"])
    text = "" if opened else f"{model.adapter.thinking_markers[0]}\n"
    sentences = " ".join(example.trace) + " "
    text += sentences * (tokens // len(model.tokenizer(sentences, add_special_tokens=False)["input_ids"]) + 2)
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]
    regions = regions_of(model, [picture], inputs)
    spans = cut(model, inputs, ids)
    return Case(example, inputs, torch.tensor(ids), spans, regions, estimator, hiding, positions)


def wide(model: Model, layers: int, dtype: torch.dtype) -> tuple[Model, Estimator]:
    """A model with the shapes of Qwen3-VL-8B, but so many layers of text, and an estimator; random, on the CPU."""
    text = {**QWEN3_VL_8B["text_config"], "num_hidden_layers": layers}
    shape = {**QWEN3_VL_8B, "text_config": text}
    random = of_shape(model, shape, dtype, Large().patches, f"qwen3-vl-8b, {layers} layers")
    return random, random_estimator(random, "attention")


def of_shape(
    model: Model, shape: Mapping[str, Any], dtype: torch.dtype, patches: int, name: str, device: str = "cpu"
) -> Model:
    """A model of a Qwen3-VL configuration's shapes with random weights, which reads images of so many visual tokens.

    Text is read with the tokenizer of the model that is given, of the same family.
    """
    ids = {key: value for key, value in model.hf.config.to_dict().items() if key.endswith("token_id")}
    with torch.device(device):
        hf = AutoModelForImageTextToText.from_config(Qwen3VLConfig(**{**shape, **ids}), dtype=dtype)
    patch = hf.config.vision_config.patch_size
    pixels = patches * (2 * patch) ** 2  # a visual token is two patches wide
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": pixels * 9 // 10, "longest_edge": pixels}, patch_size=patch
    )
    hf = hf.to(device).eval().requires_grad_(False)
    return replace(model, name=name, hf=hf, image_processor=processor)


def random_estimator(model: Model, hiding: Method) -> Estimator:
    """One that reads all that a fitted one does, earlier text too."""
    config = model.adapter.text_config(model.hf)
    settings, rng = FitSettings(), torch.Generator().manual_seed(0)
    features = len(settings.kinds) * config.num_hidden_layers * config.num_attention_heads
    sets = SETS[settings.link]
    shapes = Network.shapes(sets, settings.hidden, features)
    network = Network(**{name: torch.randn(shape, generator=rng) for name, shape in shapes.items()})
    return Estimator(
        "random", torch.randn(sets, features, generator=rng), UNKNOWN, UNKNOWN, settings.kinds, settings.link,
        {"fingerprint": fingerprint(model), "hiding": hiding}, network, torch.rand(sets, len(KINDS), generator=rng),
    ).to(model.device)  # fmt: skip


def measure(
    model: Model, example: Example, lengths: Sequence[int], rounds: int, positions: int, estimator: Estimator,
    hiding: Method, timers: Sequence[Timer] = TIMERS,
) -> list[Row]:  # fmt: skip
    """Every method at every length, in another order each round."""
    found: dict[tuple[int, str], list[Timed]] = {}
    with _one_thread():
        cases = [make_case(model, example, each, estimator, hiding, positions) for each in lengths]
        short = make_case(model, example, min(WARM_UP, *lengths), estimator, hiding, positions=0)
        for timer in timers:  # what is imported and built at first use
            timer(model, short)
        for number in range(rounds):
            for case in cases:
                for timer in islice(cycle(timers), number, number + len(timers)):
                    for name, timed in timer(model, case).items():
                        found.setdefault((len(case.ids), name), []).append(timed)
            click.echo(f"round {number + 1} of {rounds}", err=True)
    return [_row(case, name, found) for case in cases for size, name in found if size == len(case.ids)]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _row(case: Case, name: str, found: dict[tuple[int, str], list[Timed]]) -> Row:
    tokens = len(case.ids)
    seconds = {
        method: [one.seconds for one in found[tokens, method]] for size, method in found if size == tokens
    }
    ratios = [one / ours for one, ours in zip(seconds[name], seconds["eyeline"], strict=True)]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    median = statistics.median(seconds[name])
    added = 0.0
    if "stream" in seconds:
        added = statistics.median(seconds["stream"]) - statistics.median(seconds["generate"])
    return Row(
        name, tokens, len(case.spans), case.regions.count,
        case.hiding if name in ("exhaustive", f"regression-{SUBSETS}") else "",
        found[tokens, name][0].measured, median, 1e3 * median / tokens,
        middle, low, high, median / added if added > 0 else None,
    )  # fmt: skip


def draw(rows: Sequence[Row]) -> Any:
    """Milliseconds a token against the tokens of the trace, both logarithmic."""
    figure = new_figure(7.5, 4.6)
    axes = figure.add_subplot()
    for method in dict.fromkeys(row.method for row in rows if row.method != "stream"):
        mine = [row for row in rows if row.method == method]
        colour = {"eyeline": OURS, "generate": QUIET}.get(method, PLAIN)
        lengths, costs = [row.tokens for row in mine], [row.ms_per_token for row in mine]
        axes.plot(lengths, costs, "o--" if method == "generate" else "o-", color=colour, markersize=4)
        axes.annotate(
            method, (lengths[-1], costs[-1]), xytext=(6, 0), textcoords="offset points", color=colour,
            va="center", fontsize=9, annotation_clip=False,
        )  # fmt: skip
    ticks = sorted({row.tokens for row in rows})
    axes.set(
        xscale="log", yscale="log", xlabel="tokens of the trace", ylabel="milliseconds a token, one core"
    )
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.margins(x=0.05)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure


@click.command()
@MODEL
@ESTIMATOR
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Data folder; its first example is taken."
)
@click.option(
    "--tokens", "lengths", type=click.IntRange(1), multiple=True, default=(250, 1000, 2000, 4000),
    show_default=True, help="Length of a trace; more than once for several.",
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--positions", default=40_000, show_default=True,
    help="Of text that a method may run through the model at a time; of more, spans or regions are sampled evenly.",
)  # fmt: skip
@click.option(
    "--wide", "layers", type=click.IntRange(1),
    help="Time so many layers of an 8B model's width instead, random, with the tokenizer of --model.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True,
    help="Of these layers. A CPU without instructions for bfloat16 takes far longer for it.",
)  # fmt: skip
@TABLE_AND_FIGURE
def main(
    model_id: str, estimator: str | None, data: Path, lengths: tuple[int, ...], rounds: int, positions: int,
    layers: int | None, precision: str, out: Path,
) -> None:  # fmt: skip
    """Measure the cost of attribution against the length of the trace, on the CPU."""
    with writing(out):
        model = load(model_id, device="cpu")
        example = next(iter(read_examples(data)))
        if layers:
            model, own = wide(model, layers, getattr(torch, precision))
            rows = measure(model, example, lengths, rounds, positions, own, "attention", WITHOUT_DECODING)
        else:
            own, hiding = one_estimator(model, estimator)
            rows = measure(model, example, lengths, rounds, positions, own, hiding)
        write_csv(Row, rows, out, ".4g")
        write_png(draw(rows), out.with_suffix(".png"))
    click.echo(out.read_text())


if __name__ == "__main__":
    main()
