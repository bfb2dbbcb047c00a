"""What attribution costs a model in its published shape, with random weights: decoding with and without it, and rivals.

A trace that is given is written token by token, whatever random weights would rather say; so both arms of a pair, plain
`generate` read through transformers' own streamer and a stream with attribution, write the same. Nothing else may run meanwhile.
"""

import platform
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import cost, earlier_text, latency
from benchmarks.flops import QWEN3_VL_8B
from eyeline import Model, load
from eyeline.estimator import Estimator
from eyeline.evaluation.command_options import TABLE
from eyeline.evaluation.meter import Meter
from eyeline.evaluation.results import write_csv, writing
from eyeline.examples import Example
from eyeline.scenes import sample

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "8b": QWEN3_VL_8B,
    "2b": {
        "text_config": {
            "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
        },
        "vision_config": {
            "depth": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096, "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        "tie_word_embeddings": True,
    },
    "tiny": {  # to try the command itself; its vocabulary is one of which the largest logits are kept
        "text_config": {
            "vocab_size": 1200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2]},
        },
        "vision_config": {
            "depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 64,
            "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
        },
    },
}  # fmt: skip
UNITS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")
SCENE = "document", 7_100_000  # family and seed of the image and its reference trace


@dataclass(frozen=True, slots=True)
class Row:
    """One number, or a median with the ends of its 95 % interval; or what was run, and where."""

    measure: str
    value: float | str
    low: float | None = None
    high: float | None = None
    count: int | None = None  # of what the median is taken over


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is run."""

    written: int  # tokens of a trace that is decoded
    pairs: int
    lengths: tuple[int, ...]  # at which attribution is timed
    rivals: int  # tokens at which rivals are
    positions: int  # that a rival may run; of more it is scaled up


def machine(device: torch.device) -> Iterator[Row]:
    """What it was run on: processor, its vector and matrix units as Linux lists them, threads, versions."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    if (info := Path("/proc/cpuinfo")).exists():
        text = info.read_text()
        name = next(iter(re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)), name)
        flags = set(" ".join(re.findall(r"^flags\s*: (.*)$", text, re.MULTILINE)[:1]).split())
    yield Row("processor", name)
    yield Row("vector and matrix units", " ".join(unit for unit in UNITS if unit in flags) or "unknown")
    yield Row("threads", float(torch.get_num_threads()))
    yield Row("torch", torch.__version__)
    if device.type == "cuda":
        yield Row("accelerator", torch.cuda.get_device_name(device))


def of_median(measure: str, values: Sequence[float], draws: int = 2000) -> Row:
    """The median, with the 95 % percentile interval of the bootstrap."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), size=(draws, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975)).tolist()
    return Row(measure, statistics.median(values), low, high, len(values))


def pairs(model: Model, case: cost.Case, count: int) -> Iterator[Row]:
    """Decoding with attribution over decoding without, one after the other by turns.

    Without sources, the same with an estimator that needs no leak map and no image read again, and with sources.
    """
    no_map = cost.random_estimator(model, "attention")

    def plain() -> tuple[float, float]:
        clock = earlier_text.Clock()
        latency.time_generate(model, case.example, streamed=True, logits_processor=[clock], **case.writing())
        return clock.elapsed()

    def attributed(sources: bool, estimator: Estimator) -> tuple[float, float]:
        found = earlier_text.run(model, case.example, sources, estimator=estimator, **case.writing())
        return found.decoding_s, found.between_s

    plain()
    for name, how in (
        ("without sources", (False, case.estimator)),
        ("without sources and leak map", (False, no_map)),
        ("with sources", (True, case.estimator)),
    ):
        attributed(*how)
        ratios, speeds = [], []
        for number in range(count):
            if number % 2:
                (cpu, wall), (plain_cpu, plain_wall) = attributed(*how), plain()
            else:
                (plain_cpu, plain_wall), (cpu, wall) = plain(), attributed(*how)
            ratios.append((wall / plain_wall, cpu / plain_cpu))
            speeds.append((len(case.ids) - 1) / wall)
        yield of_median(f"wall of decoding over generate's, {name}", [wall for wall, _ in ratios])
        yield of_median(f"decoding thread's CPU over generate's, {name}", [cpu for _, cpu in ratios])
        yield of_median(f"tokens a second, {name}", speeds)


def memory(model: Model, case: cost.Case, longest: int) -> Iterator[Row]:
    """The highest memory in use over that of the loaded model."""
    text = case.ids.tolist()
    runs = {
        "generate": lambda: latency.time_generate(model, case.example, streamed=True, **case.writing()),
        "stream": lambda: earlier_text.run(model, case.example, True, estimator=case.estimator, **case.writing()),
        f"attribute, {longest} tokens": lambda: list(
            model.attribute(
                case.example.image, case.example.prompt, (text * (longest // len(text) + 1))[:longest],
                estimator=case.estimator,
            )
        ),
    }  # fmt: skip
    for name, run in runs.items():
        with Meter(model) as meter:
            run()
        if (extra := meter.cost.extra_memory_bytes) is not None:
            yield Row(f"memory over the model's, MiB, {name}", extra / 2**20)


def measure(model: Model, example: Example, estimator: Estimator, sizes: Sizes) -> Iterator[Row]:
    def case(tokens: int) -> cost.Case:
        hiding: Any = estimator.hiding
        return cost.make_case(model, example, tokens, estimator, hiding, sizes.positions)

    written = case(sizes.written)
    yield Row("tokens of the prompt", float(written.inputs["input_ids"].shape[1]))
    yield Row("regions", float(written.regions.count))
    yield Row("tokens written", float(sizes.written))
    yield from pairs(model, written, sizes.pairs)
    prompt = written.inputs["input_ids"].shape[1]
    for live, sources, name in (
        (True, False, "without sources"), (True, True, "with sources"), (False, False, "of a text that is given"),
    ):  # fmt: skip
        for tokens in sizes.lengths:
            seconds = latency.attribution_seconds(
                model, example, prompt + tokens, 1, live=live, estimator=estimator, sources=sources
            )
            yield Row(f"attribution, ms a token at {tokens}, {name}", 1e3 * seconds)
    long = case(sizes.rivals)
    for timer in (cost.time_exhaustive, cost.time_attn_lrp):
        ((name, timed),) = timer(model, long).items()
        unit = "ms" if model.device.type == "cuda" else "CPU ms"
        yield Row(f"{name}, {unit} a token at {sizes.rivals}", 1e3 * timed.seconds / sizes.rivals)
        yield Row(f"{name}, share that was run", timed.measured)
    yield from memory(model, written, max(sizes.lengths))


def built(shape: str, precision: str, patches: int, device: str) -> tuple[Model, Estimator, Example]:
    """A model of a published shape, or the embedded one; an estimator of random weights; and a scene with its trace."""
    if shape == "mini":
        model = load("mini", device=device, dtype=precision)
        return model, cost.random_estimator(model, "pixels"), sample(*SCENE)
    name = f"qwen3-vl-{shape}, random, {precision}"
    model = cost.of_shape(
        load("mini", device="cpu"), SHAPES[shape], getattr(torch, precision), patches, name, device
    )  # fmt: skip
    return model, cost.random_estimator(model, "pixels"), sample(*SCENE)


@click.command()
@click.option("--shape", type=click.Choice([*SHAPES, "mini"]), default="2b", show_default=True)
@click.option(
    "--precision", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True
)
@click.option("--patches", default=64, show_default=True, help="Visual tokens of the image, at most.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--written", default=64, show_default=True, help="Tokens of a trace that is decoded.")
@click.option("--pairs", "count", type=click.IntRange(2), default=15, show_default=True)
@click.option(
    "--tokens",
    "lengths",
    type=click.IntRange(30),
    multiple=True,
    default=(250, 1000),
    show_default=True,
)
@click.option("--rivals", default=1000, show_default=True, help="Tokens at which rivals are timed.")
@click.option(
    "--positions", default=1300, show_default=True, help="That a rival may run; of more it is scaled up."
)
@TABLE
def main(
    shape: str, precision: str, patches: int, device: str, written: int, count: int, lengths: tuple[int, ...], rivals: int,
    positions: int, out: Path,
) -> None:  # fmt: skip
    """Measure what attribution costs a model in its published shape."""
    with writing(out, figure=False):
        model, estimator, example = built(shape, precision, patches, device)
        sizes = Sizes(written, count, lengths, rivals, positions)
        write_as_they_come(
            [*machine(model.device), Row("model", model.name)], measure(model, example, estimator, sizes), out
        )
    click.echo(out.read_text())


def write_as_they_come(rows: list[Row], more: Iterable[Row], out: Path) -> None:
    """So that what is there stays, should the rest not come."""
    for row in more:
        rows.append(row)
        click.echo(f"{row.measure}: {row.value}", err=True)
        write_csv(Row, rows, out, ".4g")


if __name__ == "__main__":
    main()
