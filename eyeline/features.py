"""A span's captured steps -> what an estimator reads: one value for each feature, layer, head and visual token.

Four features, each summed over the span's tokens t, for visual token i, layer l and head h:

- `attention`: A, the attention weight (arXiv 2604.16587);
- `value`: A times the norm of the value written to the residual stream, |V_i W_O|;
- `odds`: A times the written value's direct contribution to the log-odds of the written token, g_t . (V_i W_O), where
  g_t is the gradient of log p / (1 - p) at the final residual stream: the written token's unembedding minus the
  expected one of all others, through the final norm. Everything after the head but the direct path is left out;
- `logit`: the same for log p. Its gradient is (1 - p) g_t: little is left of it where the model is sure, however much
  the image has made it so.

In families with a norm after attention, the written value is what leaves that norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.attention import AttentionCapture, Steps, attention_to_image
from eyeline.model import Model
from eyeline.spans import Span

KINDS = ("attention", "value", "logit", "odds")  # the order of features in estimators and collections
WEIGHTS_AT_ONCE = 2**24  # attention weights in float32: 64 MiB


@dataclass(frozen=True)
class ImageValues:
    """What does not change during a generation, worked out once after the prompt has been read."""

    keys: Float[Tensor, "layer kv_head patch dim"]
    values: Float[Tensor, "layer kv_head patch dim"]
    norms: Float[Tensor, "layer head patch"]  # of the values as written to the residual stream


def read_image(model: Model, capture: AttentionCapture) -> ImageValues:
    """The keys and values of a capture whose prompt has been read, and the norms of the written values."""
    norms = []
    for layer, values in enumerate(capture.image_values):
        output = _output(model, layer, values.dtype)
        weight = output.weight.float() * (1.0 if output.gain is None else output.gain.float()[:, None])
        written = weight.T.unflatten(0, (-1, values.shape[-1]))  # (head, dim, width)
        gram = written @ written.transpose(1, 2)
        grouped = values.float().repeat_interleave(len(written) // len(values), dim=0)  # (head, patch, dim)
        norms.append(((grouped @ gram) * grouped).sum(-1).clamp(min=0).sqrt())
    return ImageValues(capture.image_keys, capture.image_values, torch.stack(norms))


def token_log_probs(model: Model, hidden: Float[Tensor, "token width"]) -> Float[Tensor, "token entry"]:
    """log p of every entry of the vocabulary for each token, nats, temperature 1: the model's own norm and head."""
    normed = model.adapter.final_norm(model.hf)(hidden)
    return model.adapter.lm_head(model.hf)(normed).float().log_softmax(-1)


@dataclass(frozen=True)
class Written:
    """How the residual stream before the final norm made the model write its tokens."""

    odds: Float[Tensor, "token width"]  # gradient of each token's log p / (1 - p)
    doubt: Float[Tensor, " token"]  # 1 - p; the gradient of log p is so many times the other


def read_written(
    model: Model,
    hidden: Float[Tensor, "token width"],
    log_probs: Float[Tensor, "token entry"],
    token_ids: Int[Tensor, " token"],
) -> Written:
    """What the logit features need of the written tokens.

    With n = h / rms(h), logits = W (w n), and q the model's distribution over all tokens but y:
    d log p(y) / (1 - p(y)) / d h = (a - n (n . a) / width) / rms, a = w (W_y - E_q[W]).
    """
    norm: Any = model.adapter.final_norm(model.hf)
    head: Any = model.adapter.lm_head(model.hf)
    hidden = hidden.float()
    rms = (hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    normed = hidden / rms
    others = log_probs.scatter(1, token_ids[:, None], -torch.inf).softmax(-1)
    expected = others.to(head.weight.dtype) @ head.weight  # (token, width)
    direction = norm.weight.float() * (head.weight[token_ids].float() - expected.float())
    odds = (direction - normed * (normed * direction).mean(-1, keepdim=True)) / rms
    return Written(odds, -torch.expm1(log_probs.gather(1, token_ids[:, None])[:, 0]))


def patch_features(
    model: Model,
    capture: AttentionCapture,
    image: ImageValues,
    steps: Steps,
    written: Written | None,
    kinds: Sequence[str] = KINDS,
) -> Float[Tensor, "feature patch"]:
    """The features of one span, float32; rows are kind-major, then layer-major: (kind, layer, head).

    Only `logit` and `odds` need what is written, which `read_written` reads. As many layers at a time as WEIGHTS_AT_ONCE allows:
    all of a small model, one of a large model with a large image. Summing columns over a region gives that region's
    features: hiding regions together adds their features.
    """
    visible = capture.visible(steps)
    layers, heads, tokens, _ = steps.queries.shape
    at_once = max(1, WEIGHTS_AT_ONCE // (heads * tokens * image.keys.shape[2]))
    columns: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for some in torch.arange(layers).split(at_once):
        span = slice(int(some[0]), int(some[-1]) + 1)
        part = Steps(steps.start, steps.queries[span], steps.log_sum_exp[span], steps.hidden, None)
        weights = attention_to_image(
            part, image.keys[span], capture.scaling, None if visible is None else visible[span]
        )  # (layer, head, token, patch)
        sums = weights.sum(2)
        if "attention" in kinds:
            columns["attention"].append(sums)
        if steps.attention_rms is not None:
            weights = weights / steps.attention_rms[span][:, None, :, None]
            sums = weights.sum(2)
        if "value" in kinds:
            columns["value"].append(sums * image.norms[span])
        if reads_written(kinds):
            assert written is not None
            values = image.values[span].float()  # (layer, kv_head, patch, dim)
            projected = torch.stack(
                [_project(model, layer, written.odds, image.values.dtype) for layer in some.tolist()]
            )
            grouped = (
                projected.unflatten(2, (values.shape[1], -1, values.shape[-1]))
                .permute(0, 2, 3, 1, 4)
                .flatten(2, 3)
            )
            gains = (grouped @ values.transpose(2, 3)).view(weights.shape)
            gains = weights * gains
            if "logit" in kinds:
                columns["logit"].append((gains * written.doubt[:, None]).sum(2))
            if "odds" in kinds:
                columns["odds"].append(gains.sum(2))
    return torch.cat([torch.cat(columns[kind]).flatten(0, 1) for kind in kinds])


def reads_written(kinds: Sequence[str]) -> bool:
    """Whether any of the kinds needs `read_written`."""
    return "logit" in kinds or "odds" in kinds


def _project(
    model: Model, layer: int, gradient: Float[Tensor, "token width"], dtype: torch.dtype
) -> Float[Tensor, "token inner"]:
    """The gradient at what the heads of a layer put out, before W_O; float32."""
    output = _output(model, layer, dtype)
    gradient = gradient if output.gain is None else gradient * output.gain
    return (gradient.to(output.weight.dtype) @ output.weight).float()


def captured_features(
    model: Model,
    capture: AttentionCapture,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    labels: Int[Tensor, " patch"],
    num_regions: int,
    kinds: Sequence[str] = KINDS,
) -> Float[Tensor, "span region feature"]:
    """The features of spans of a trace that a capture has seen read, float32; columns as `patch_features` has rows."""
    image = read_image(model, capture)
    rows = []
    for span in spans:
        steps = capture.take(span.start, span.end)
        written = None
        if reads_written(kinds):
            log_probs = token_log_probs(model, steps.hidden)
            written = read_written(model, steps.hidden, log_probs, trace_ids[span.start : span.end])
        columns = patch_features(model, capture, image, steps, written, kinds)
        rows.append(pool(columns, labels, num_regions))
    return torch.stack(rows).float()


def pool(
    features: Float[Tensor, "feature patch"], labels: Int[Tensor, " patch"], num_regions: int
) -> Float[Tensor, "region feature"]:
    """Sums of the features over the visual tokens of each region; a region without tokens gets zeros."""
    return features.new_zeros(num_regions, len(features)).index_add_(0, labels, features.T)


@dataclass(frozen=True, slots=True)
class _Output:
    """How the attention of a layer writes to the residual stream: gain * (weight @ heads)."""

    weight: Float[Tensor, "width inner"]
    gain: Float[Tensor, " width"] | None  # of the norm after attention, where there is one


def _output(model: Model, layer: int, dtype: torch.dtype) -> _Output:
    block = model.adapter.layers(model.hf)[layer]
    projection: Any = model.adapter.self_attention(block).o_proj
    norm: Any = model.adapter.attention_norm(block)
    weight = projection.weight
    if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        # quantised, packed as its library likes: read off what it does to the unit vectors
        units = torch.eye(projection.in_features, dtype=dtype, device=weight.device)
        weight = projection(units).T
    return _Output(weight, None if norm is None else norm.weight)
