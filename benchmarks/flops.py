"""What attribution costs a model that does not fit here: floating-point operations, counted on its shapes without weights.

The model is built on torch's `meta` device, where tensors have shapes and no numbers. Passes through it, forward and back,
and the functions of features.py are run there, and what they multiply is counted. Operations are not seconds: attribution
moves little memory, and decoding much.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, DynamicCache, PreTrainedConfig, Qwen3VLConfig

from eyeline import features
from eyeline.adapters import adapter_of
from eyeline.attention import Steps, likeliest
from eyeline.capture import AttentionCapture
from eyeline.estimator import SETS, Estimator, Network
from eyeline.evaluation.command_options import TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.game import PERMUTATIONS, contributions
from eyeline.leak import tokens_kept
from eyeline.model import Model
from eyeline.rereading import Without
from eyeline.teacher_forcing import cache_name
from eyeline.training.weights import FitSettings

# The shapes of Qwen3-VL-8B-Thinking, as its configuration says
QWEN3_VL_8B: Mapping[str, Any] = {
    "text_config": {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
    "vision_config": {"depth": 27, "hidden_size": 1152, "num_heads": 16, "intermediate_size": 4304, "out_hidden_size": 4096},
}  # fmt: skip
SUBSETS = 32  # of the regression, counted here and timed in cost.py


@dataclass(frozen=True, slots=True)
class Setting:
    """One image and trace."""

    patches: int = 1024  # visual tokens: an image of a megapixel
    regions: int = 64
    prompt: int = 64  # tokens beside the image
    span: int = 24  # tokens


@dataclass(frozen=True, slots=True)
class Row:
    """A method at one length of the trace."""

    method: str
    tokens: int
    gflop_per_token: float
    over_eyeline: float


def on_meta(config: PreTrainedConfig) -> Model:
    """A model of a configuration without weights, in bfloat16, with only what features.py reads of it; nothing is trained."""
    with torch.device("meta"):
        hf = (
            AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).eval().requires_grad_(False)
        )
    return Model("meta", hf, None, None, adapter_of(hf), "")


def count(run: Callable[[], Any]) -> float:
    """Floating-point operations of a call, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def reading(model: Model, before: int, length: int) -> float:
    """A pass over so many positions after a cache of others, up to the last hidden states."""
    with torch.inference_mode():
        return count(lambda: _read(model, _empty(1, length, _width(model)), before))


def going_back(model: Model, length: int) -> float:
    """From the last hidden states of so many positions back to what entered at them."""
    with torch.enable_grad():
        entered = _empty(1, length, _width(model)).requires_grad_()
        states = _read(model, entered, 0)
        return count(lambda: torch.autograd.grad(states, entered, torch.empty_like(states)))


def telling(model: Model, length: int) -> float:
    """The logits of so many positions."""
    head = model.adapter.lm_head(model.hf)
    with torch.inference_mode():
        return count(lambda: head(_empty(1, length, _width(model))))


def _read(model: Model, entered: Tensor, before: int) -> Tensor:
    text: Any = model.adapter.text_model(model.hf)
    config = model.adapter.text_config(model.hf)
    length = entered.shape[1]
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        keys = _empty(1, config.num_key_value_heads, before, _dim(config))
        cache.update(keys, keys, layer)
    return text(
        inputs_embeds=entered, use_cache=True, attention_mask=_empty(1, 1, length, before + length),
        position_ids=torch.zeros(3, 1, length, dtype=torch.long, device="meta"), **{cache_name(model): cache},
    ).last_hidden_state  # fmt: skip


def _width(model: Model) -> int:
    return model.adapter.text_config(model.hf).hidden_size


def attributing(model: Model, setting: Setting) -> tuple[float, float]:
    """An image, read once and in part again without each region; and one span, from what was kept of its steps to the scores.

    The vision tower's passes are not counted, of no method.
    """
    config = model.adapter.text_config(model.hf)
    layers, heads, dim = config.num_hidden_layers, config.num_attention_heads, _dim(config)
    side = model.adapter.merge_size(model.hf)
    image_tokens = torch.full((1, setting.patches), model.adapter.image_token_id(model.hf))
    grid = torch.tensor([[1, side, side * setting.patches]])
    capture = AttentionCapture(model, {"input_ids": image_tokens, "image_grid_thw": grid})
    values = _empty(layers, config.num_key_value_heads, setting.patches, dim)
    steps = Steps(
        0, _empty(layers, heads, setting.span, dim), _empty(layers, heads, setting.span).float(),
        _empty(setting.span, config.hidden_size), None, likeliest(_empty(setting.span, config.vocab_size)),
        _empty(layers, heads, setting.span, dim),
    )  # fmt: skip
    ids = torch.zeros(setting.span, dtype=torch.long, device="meta")
    kinds = FitSettings().kinds
    weights = _empty(setting.span, len(kinds) * layers * heads).float()
    shares = _empty(setting.regions, setting.patches).float()
    again = tokens_kept(setting.patches, setting.patches // setting.regions, setting.regions)
    region = torch.zeros(setting.regions * again, dtype=torch.long, device="meta")
    anew = _empty(layers, config.num_key_value_heads, len(region), dim)
    labels = torch.zeros(setting.patches, dtype=torch.long, device="meta")
    parts = features.Parts(
        labels, setting.regions, shares, Without(setting.regions, setting.patches, region, region, anew, anew)
    )
    vars(parts)["own"] = labels  # which depends on what the labels are, and shapes have none
    shapes = Network.shapes(SETS[FitSettings().link], FitSettings().hidden, weights.shape[1])
    network = Network(**{name: _empty(*shape).float() for name, shape in shapes.items()})
    spread = torch.zeros(2, 3)
    estimator = Estimator(
        "", _empty(SETS[FitSettings().link], weights.shape[1]).float(), spread, spread, kinds, network=network
    )
    along = torch.zeros(PERMUTATIONS, setting.regions, dtype=torch.long, device="meta")

    def read_span() -> None:
        read = features.read_steps(model, capture, image, steps, ids, parts, kinds, lambda odds: weights)
        game = estimator.game(read.features, read.log_odds)
        game.alone()
        contributions(game, along)

    with torch.inference_mode():
        image = features.ImageValues(
            lambda some: (values[some], values[some]), features.written_norms(model, values, capture.layers)
        )
        norms = count(lambda: features.written_norms(model, values, capture.layers))
        return norms + setting.regions * reading(model, setting.patches, again), count(read_span)


def measure(model: Model, lengths: Sequence[int], setting: Setting) -> list[Row]:
    """Every method at every length. What hides regions does it by attention knockout, the image read once for all rows.

    Gradients go from a span's states back through prompt and trace, the logits of the span alone computed again.
    """
    before = setting.patches + setting.prompt
    image, span = attributing(model, setting)
    rows = []
    for tokens in lengths:
        spans = tokens / setting.span
        told = telling(model, tokens)
        row = reading(model, setting.patches, setting.prompt + tokens) + told
        totals = {
            "decoding": tokens * reading(model, before + tokens // 2, 1) + told,
            "eyeline": image + spans * span,
            "exhaustive": (1 + setting.regions) * row,
            f"regression-{SUBSETS}": (1 + SUBSETS) * row,
            "attn-lrp": reading(model, 0, before + tokens) + spans * going_back(model, before + tokens) + 2 * told,
        }  # fmt: skip
        rows += [
            Row(method, tokens, total / tokens / 1e9, total / totals["eyeline"])
            for method, total in totals.items()
        ]
    return rows


def _dim(config: Any) -> int:
    """Of a head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


@click.command()
@click.option(
    "--tokens", "lengths", type=click.IntRange(1), multiple=True, default=(250, 1000, 4000),
    show_default=True, help="Length of a trace; more than once for several.",
)  # fmt: skip
@click.option(
    "--patches", type=click.IntRange(1), default=Setting().patches, show_default=True, help="Visual tokens."
)
@click.option("--regions", type=click.IntRange(1), default=Setting().regions, show_default=True)
@TABLE
def main(lengths: tuple[int, ...], patches: int, regions: int, out: Path) -> None:
    """Count the operations of attribution on the shapes of Qwen3-VL-8B."""
    with writing(out, figure=False):
        model = on_meta(Qwen3VLConfig(**QWEN3_VL_8B))
        write_csv(Row, measure(model, lengths, Setting(patches=patches, regions=regions)), out, ".4g")
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
