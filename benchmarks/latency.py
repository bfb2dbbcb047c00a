"""What attribution costs while decoding: against `generate`, against the next span, and against the length of the context.

Everything is a ratio of runs taken turn about in one process; nothing else may run meanwhile.
"""

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch
from transformers import TextIteratorStreamer

from benchmarks.cost import logits_left
from eyeline import Model, load
from eyeline.evaluation.command_options import DATA, MODEL, TABLE
from eyeline.evaluation.meter import clock
from eyeline.evaluation.results import write_csv, writing
from eyeline.events import Done, SpanAttribution, Text
from eyeline.examples import Example, read_examples
from eyeline.generation import LEFT_OUT
from eyeline.producer import Producer
from eyeline.reader import Reader, ReadSpan
from eyeline.spans import Span

TOKENS = 320  # of a trace, the end token not allowed before
LAST = 100  # tokens, at least, whose reading is timed


@dataclass(frozen=True, slots=True)
class Row:
    """One number, or two quartiles, as it is written."""

    measure: str
    value: str


def time_generate(model: Model, example: Example, *, streamed: bool, **more: Any) -> tuple[float, float]:
    """Wall and CPU seconds of `generate`, with transformers' own text streamer read by another thread, or bare.

    `more` are options of `generate` in the place of ours.
    """
    inputs = model.inputs(example.image, example.prompt)
    options = {
        **LEFT_OUT,
        "do_sample": False,
        **(more or {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}),
    }
    wall, cpu = time.perf_counter(), time.process_time()
    if streamed:
        streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
        thread = threading.Thread(
            target=model.hf.generate, kwargs={**inputs, **options, "streamer": streamer}
        )
        thread.start()
        for _ in streamer:
            pass
        thread.join()
    else:
        model.hf.generate(**inputs, **options)
    return time.perf_counter() - wall, time.process_time() - cpu


def time_stream(model: Model, example: Example) -> tuple[float, float]:
    """Wall and CPU seconds of the same generation with attribution, every event read."""
    wall, cpu = time.perf_counter(), time.process_time()
    events = list(
        model.stream(
            example.image, example.prompt, temperature=0, max_new_tokens=TOKENS, min_new_tokens=TOKENS
        )
    )
    assert isinstance(events[-1], Done)
    assert events[-1].tokens == TOKENS
    return time.perf_counter() - wall, time.process_time() - cpu


def first_text_seconds(model: Model, example: Example) -> float:
    """From the question to the first piece of the trace."""
    began = time.perf_counter()
    with model.stream(example.image, example.prompt, temperature=0, max_new_tokens=TOKENS) as stream:
        for event in stream:
            if isinstance(event, Text):
                return time.perf_counter() - began
    raise AssertionError("a trace without text")


def timely(model: Model, example: Example) -> Iterator[bool]:
    """For each span but the last: whether its attribution was there before the next span's last token was."""
    arrived: list[tuple[SpanAttribution, float]] = []
    for event in model.stream(example.image, example.prompt, temperature=0, max_new_tokens=TOKENS):
        if isinstance(event, SpanAttribution):
            arrived.append((event, time.perf_counter()))
    for (_, here), (following, there) in pairwise(arrived):
        yield here < there - following.latency_s  # its own last token


@contextmanager
def reading_timed(model: Model) -> Iterator[list[tuple[int, float]]]:
    """Of each time that a stream's worker reads in the block, a span or ahead: how many new tokens, and the wall's seconds."""
    read, ahead = Reader.read, Reader.read_ahead
    found: list[tuple[int, float]] = []

    def note(end: int, began: float) -> None:
        known = sum(tokens for tokens, _ in found)
        found.append((max(0, end - known), clock(model) - began))  # none where all was read ahead

    def timed_read(self: Reader, span: Span, ids: Sequence[int]) -> ReadSpan:
        began = clock(model)
        result = read(self, span, ids)
        note(span.end, began)
        return result

    def timed_ahead(self: Reader, start: int, ids: Sequence[int]) -> None:
        began = clock(model)
        ahead(self, start, ids)
        note(start + len(ids), began)

    Reader.read, Reader.read_ahead = timed_read, timed_ahead
    try:
        yield found
    finally:
        Reader.read, Reader.read_ahead = read, ahead


@contextmanager
def span_by_span() -> Iterator[None]:
    """Lets the worker read a text that is already written as a stream's, each span when it has ended."""
    known = Producer.known
    Producer.known = lambda self, ids: known(self, ids) if ids is self.ids else None
    try:
        yield
    finally:
        Producer.known = known


def attribution_seconds(
    model: Model, example: Example, context: int, repeats: int, *, live: bool = True, **options: Any
) -> float:
    """Seconds a token that the worker takes for spans near position `context` of a teacher-forced filler; median over repeats.

    As a stream reads, or, not `live`, as `attribute` does. `options` are those of `attribute`. Logits are left behind as in
    decoding.
    """
    sentence = " Line 1 says tea 4."
    size = len(model.tokenizer(sentence, add_special_tokens=False)["input_ids"])
    prompt = model.inputs(example.image, example.prompt)["input_ids"].shape[1]
    text = sentence * ((context - prompt) // size)
    seconds: list[float] = []
    for _ in range(repeats):
        with logits_left(), span_by_span() if live else nullcontext(), reading_timed(model) as read:
            list(model.attribute(example.image, example.prompt, text, **options))
        tokens, taken = 0, 0.0
        while read and tokens < LAST:
            new, since = read.pop()
            tokens, taken = tokens + new, taken + since
        seconds.append(taken / tokens)
    return statistics.median(seconds)


def measure(model: Model, examples: Sequence[Example], rounds: int, timely_examples: int) -> list[Row]:
    """Everything, in the order of the table."""
    rows: list[tuple[str, str]] = [("threads", str(torch.get_num_threads()))]
    cold = first_text_seconds(model, examples[0])  # nothing has been run yet
    warm_ones = [first_text_seconds(model, example) for example in examples[:15]]
    rows.append(("first_text_s_after_loading", f"{cold:.4f}"))
    rows.append(("first_text_s_later_median", f"{statistics.median(warm_ones):.4f}"))
    for warm in examples[:2]:
        time_stream(model, warm)
        time_generate(model, warm, streamed=True)
        time_generate(model, warm, streamed=False)
    ratios, bare, cpu, speeds = [], [], [], []
    for number in range(rounds):
        example = examples[number % len(examples)]
        runs = [
            lambda e=example: time_stream(model, e),
            lambda e=example: time_generate(model, e, streamed=True),
        ]
        first, second = runs if number % 2 else runs[::-1]
        results = {id(first): first(), id(second): second()}
        ours, theirs = results[id(runs[0])], results[id(runs[1])]
        alone = time_generate(model, example, streamed=False)
        ratios.append(ours[0] / theirs[0])
        bare.append(ours[0] / alone[0])
        cpu.append(ours[1] / theirs[1])
        speeds.append(TOKENS / ours[0])
    for name, values in (
        ("over_generate_with_streamer", ratios),
        ("over_bare_generate", bare),
        ("cpu_over_generate_with_streamer", cpu),
    ):
        low, middle, high = statistics.quantiles(values, n=4)
        rows.append((f"{name}_median", f"{middle:.4f}"))
        rows.append((f"{name}_quartiles", f"{low:.4f} {high:.4f}"))
    rows.append(("tokens_per_s_with_attribution_median", f"{statistics.median(speeds):.1f}"))
    in_time = [flag for example in examples[:timely_examples] for flag in timely(model, example)]
    rows.append(("attributions_before_the_next_span_ends", f"{sum(in_time) / len(in_time):.4f}"))
    rows.append(("spans", str(len(in_time))))
    short, long = [], []
    for _ in range(5):
        short.append(attribution_seconds(model, examples[0], 250, 5))
        long.append(attribution_seconds(model, examples[0], 4000, 1))
    rows.append(("attribution_ms_per_token_at_250", f"{1000 * statistics.median(short):.4f}"))
    rows.append(("attribution_ms_per_token_at_4000", f"{1000 * statistics.median(long):.4f}"))
    rows.append(
        (
            "ratio_4000_over_250",
            f"{statistics.median(one / two for one, two in zip(long, short, strict=True)):.4f}",
        )
    )
    return [Row(*each) for each in rows]


@click.command()
@MODEL
@DATA
@click.option(
    "--rounds", type=click.IntRange(2), default=15, show_default=True, help="Interleaved runs of each kind."
)
@click.option("--timely-examples", default=60, show_default=True)
@TABLE
def main(model_id: str, data: Path, rounds: int, timely_examples: int, out: Path) -> None:
    """Measure the cost of attribution while decoding."""
    with writing(out, figure=False):
        rows = measure(load(model_id), list(read_examples(data)), rounds, timely_examples)
        write_csv(Row, rows, out)
    for row in rows:
        click.echo(f"{row.measure}: {row.value}")


if __name__ == "__main__":
    main()
