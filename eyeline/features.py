"""A span's captured steps -> what an estimator reads: one value for each feature, layer, head and visual token.

Three features, each summed over the span's tokens t, for visual token i, layer l and head h:

- `attention`: A, the attention weight (arXiv 2604.16587);
- `value`: A times the norm of the value written to the residual stream, |V_i W_O|;
- `logit`: A times the written value's direct contribution to log p of the written token, g_t . (V_i W_O), where
  g_t is the gradient of log p at the final residual stream: the written token's unembedding minus the model's
  expected one, through the final norm. Everything after the head but the direct path is left out.

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

KINDS = ("attention", "value", "logit")  # the order of features in estimators and collections


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


def logit_gradient(
    model: Model,
    hidden: Float[Tensor, "token width"],
    log_probs: Float[Tensor, "token entry"],
    token_ids: Int[Tensor, " token"],
) -> Float[Tensor, "token width"]:
    """The gradient of each written token's log p at the residual stream before the final norm.

    With n = h / rms(h), logits = W (w n): d log p(y) / d h = (a - n (n . a) / width) / rms, a = w (W_y - E_p[W]).
    """
    norm: Any = model.adapter.final_norm(model.hf)
    head: Any = model.adapter.lm_head(model.hf)
    hidden = hidden.float()
    rms = (hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    normed = hidden / rms
    expected = log_probs.exp().to(head.weight.dtype) @ head.weight  # (token, width)
    direction = norm.weight.float() * (head.weight[token_ids].float() - expected.float())
    return (direction - normed * (normed * direction).mean(-1, keepdim=True)) / rms


def patch_features(
    model: Model,
    capture: AttentionCapture,
    image: ImageValues,
    steps: Steps,
    gradient: Float[Tensor, "token width"] | None,
    kinds: Sequence[str] = KINDS,
) -> Float[Tensor, "feature patch"]:
    """The features of one span, float32; rows are kind-major, then layer-major: (kind, layer, head).

    Only `logit` needs the gradient, which is `logit_gradient`'s. A layer at a time, so that memory holds one layer's
    (head, token, patch) weights. Summing columns over a region gives that region's features: hiding regions together
    adds their features.
    """
    visible = capture.visible(steps)
    columns: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for layer in range(len(steps.queries)):
        one = slice(layer, layer + 1)
        part = Steps(steps.start, steps.queries[one], steps.log_sum_exp[one], steps.hidden, None)
        weights = attention_to_image(
            part, image.keys[one], capture.scaling, None if visible is None else visible[one]
        )[0]
        if "attention" in kinds:
            columns["attention"].append(weights.sum(1))
        if steps.attention_rms is not None:
            weights = weights / steps.attention_rms[layer][:, None]
        if "value" in kinds:
            columns["value"].append(weights.sum(1) * image.norms[layer])
        if "logit" in kinds:
            assert gradient is not None
            values = image.values[layer].float()  # (kv_head, patch, dim)
            output = _output(model, layer, image.values.dtype)
            projected = gradient if output.gain is None else gradient * output.gain
            projected = (projected.to(output.weight.dtype) @ output.weight).float()  # (token, head * dim)
            grouped = (
                projected.unflatten(1, (len(values), -1, values.shape[-1])).permute(1, 2, 0, 3).flatten(1, 2)
            )
            gains = (grouped @ values.transpose(1, 2)).view(weights.shape)
            columns["logit"].append((weights * gains).sum(1))
    return torch.cat([torch.cat(columns[kind]) for kind in kinds])


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
