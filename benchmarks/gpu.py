"""What was never run here: an 8B model's shape on CUDA, exactness first, then what whole.py measures, and two streams at once.

Every row is written as soon as it is there. On a CPU, with tiny shapes, it runs too: that tries the script, and measures nothing.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks import cost, whole
from benchmarks.whole import Row
from eyeline import Model
from eyeline.attention import attention_to
from eyeline.capture import AttentionCapture
from eyeline.estimator import Estimator
from eyeline.evaluation.command_options import TABLE
from eyeline.evaluation.results import writing
from eyeline.events import Error, SpanAttribution
from eyeline.examples import Example
from eyeline.generation import LEFT_OUT
from eyeline.kernels import KERNELS, any_kernel
from eyeline.scenes import sample

WRITTEN = 40  # tokens with and without a capture
SHAPES = {  # of attention: rows, columns, dimensions of a head
    "decoding": (1, 1500, 128), "a prompt": (700, 700, 128), "a pass after others": (128, 1500, 128), "small heads": (1, 90, 32),
}  # fmt: skip


def exact(model: Model, example: Example) -> Iterator[Row]:
    """Whether a capture leaves the model alone, and reads what the model attends to."""
    name = model.name.rpartition(", ")[2]
    inputs = model.inputs(example.image, example.prompt)
    options: dict[str, Any] = {
        **LEFT_OUT, "do_sample": False, "max_new_tokens": WRITTEN, "min_new_tokens": WRITTEN, "output_logits": True,
        "return_dict_in_generate": True,
    }  # fmt: skip
    without = model.hf.generate(**inputs, **options)
    with AttentionCapture(model, inputs) as capture:
        within = model.hf.generate(**inputs, **options)
    yield Row(
        f"ids with a capture are those without, {name}",
        float(torch.equal(within.sequences, without.sequences)),
    )
    apart = max(
        float((one - other).abs().max()) for one, other in zip(within.logits, without.logits, strict=True)
    )
    yield Row(f"largest difference of a logit with a capture, {name}", apart)
    steps = capture.take(0, 1)
    ours = attention_to(steps, capture.image_columns(slice(None))[0], capture.scaling)
    before = model.hf.config.text_config._attn_implementation
    model.hf.set_attn_implementation({"text_config": "eager"})
    with torch.inference_mode():
        layers = model.hf(**inputs, output_attentions=True, use_cache=False).attentions
    model.hf.set_attn_implementation({"text_config": before})
    theirs = torch.stack([layer[0, :, -1:, capture.image_positions] for layer in layers]).float()
    yield Row(f"largest difference of an attention weight, {name}", float((ours - theirs).abs().max()))


def kernels(device: torch.device) -> Iterator[Row]:
    """The kernel's output and log-sum-exp beside sdpa's and those worked out in float32."""
    rng = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=rng).to(device, dtype)

    kernel = KERNELS.get(device.type, any_kernel)
    for dtype in (torch.float32, torch.bfloat16):
        for name, (rows, columns, dim) in SHAPES.items():
            query, key, value = drawn(8, rows, dim), drawn(2, columns, dim), drawn(2, columns, dim)
            mask = None
            if 1 < rows < columns:
                mask = torch.ones(1, 1, rows, columns, dtype=torch.bool, device=device).tril(columns - rows)
            given = query, key, value, mask, rows == columns, dim**-0.5
            found, expected = kernel(*given), any_kernel(*given)
            for what, one, other in zip(("output", "log-sum-exp"), found, expected, strict=True):
                label = f"largest difference of {what}, {name}, {str(dtype).removeprefix('torch.')}"
                yield Row(label, float((one.float() - other.float()).abs().max()))


def two_at_once(model: Model, estimator: Estimator, example: Example, tokens: int) -> Iterator[Row]:
    """Two streams of different images at once: their ids, and their numbers beside those of each alone."""
    cases = [
        cost.make_case(model, each, tokens, estimator, "pixels", 1)
        for each in (example, sample(whole.SCENE[0], whole.SCENE[1] + 1))
    ]
    found: dict[tuple[int, bool], tuple[list[int], list[SpanAttribution], int]] = {}

    def run(number: int, alone: bool) -> None:
        case = cases[number]
        stream = model.stream(
            case.example.image, case.example.prompt, estimator=estimator, temperature=0, **case.writing()
        )
        events = list(stream)
        spans = [event for event in events if isinstance(event, SpanAttribution)]
        found[number, alone] = stream.ids, spans, sum(isinstance(event, Error) for event in events)

    for number in range(2):
        run(number, True)
    threads = [threading.Thread(target=run, args=(number, False)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield Row("two streams at once: errors", float(sum(found[number, False][2] for number in range(2))))
    same = all(found[number, False][0] == found[number, True][0] for number in range(2))
    yield Row("two streams at once: ids as alone", float(same))
    apart, size = 0.0, 0.0
    for number in range(2):
        for one, other in zip(found[number, False][1], found[number, True][1], strict=True):
            ours, theirs = torch.tensor(one.effects), torch.tensor(other.effects)
            apart, size = max(apart, float((ours - theirs).abs().max())), max(size, float(theirs.abs().max()))
    yield Row("two streams at once: largest difference of an effect, nats", apart)
    yield Row("two streams at once: largest effect, nats", size)


def measure(device: str, tiny: bool) -> Iterator[Row]:
    example = sample(*whole.SCENE)
    yield from kernels(torch.device(device))
    for precision in ("float32", "bfloat16"):
        small = whole.built("tiny", precision, 64, device)[0]
        yield from exact(small, example)
    shape, precision, patches = ("tiny", "float32", 64) if tiny else ("8b", "bfloat16", 1024)
    model, estimator, example = whole.built(shape, precision, patches, device)
    yield Row("model", model.name)
    sizes = whole.Sizes(256, 5, (250, 1000, 4000), 1000, 40_000)
    if tiny:
        sizes = whole.Sizes(40, 2, (60,), 40, 300)
    yield from two_at_once(model, estimator, example, sizes.written)
    yield from whole.measure(model, example, estimator, sizes)


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="Tiny shapes, to try the script: on a CPU with --device cpu.")
@TABLE
def main(device: str, tiny: bool, out: Path) -> None:
    """Check and measure an 8B model's shape on CUDA."""
    with writing(out, figure=False):
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise click.ClickException("There is no CUDA here; --device cpu --tiny tries the script.")
        whole.write_as_they_come(list(whole.machine(torch.device(device))), measure(device, tiny), out)
    click.echo(out.read_text())


if __name__ == "__main__":
    main()
