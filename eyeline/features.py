"""A span's captured steps -> what an estimator reads: for each token one value for each feature, layer, head and region.

Three features are of visual tokens, for token t, visual token i, layer l and head h, and become those of regions by summing:

- `attention`: A, the attention weight (arXiv 2604.16587);
- `value`: A times the norm of the value written to the residual stream, |V_i W_O|;
- `odds`: A times the written value's direct contribution to the log-odds of the written token, g_t . (V_i W_O), where
  g_t is the gradient of log p / (1 - p) at the final residual stream: the written token's unembedding minus the
  expected one of all others, through the final norm. Everything after the head but the direct path is left out.

The fourth is of a region k as a whole:

- `change`: by how much that contribution of all the head puts out falls without the region. Of the tokens i in M that the
  region moves, the keys and values become K'_i and V'_i (rereading.py), and what the head puts out
  (o - sum A_i V_i + sum E_i V'_i) / (1 - sum A_i + sum E_i), with E_i what A_i would be by K'_i before it is normalised again.
  What the head puts out, o, is the sum of A_j V_j over the image and all text before, which the cache holds.

In families with a norm after attention, the written value is what leaves that norm. What the sum of the features of regions
that are hidden together does to a token's log-prob, and so to a span's, is the estimator's. It may read each head by itself, or
all of them as a set (head_set.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.attention import Likeliest, Steps, attention_to, layers_at_once, likeliest
from eyeline.capture import AttentionCapture
from eyeline.head_set import KINDS, as_set, is_set, of_heads
from eyeline.leak import Fill, leak_map
from eyeline.model import Model, check_finite
from eyeline.projections import gain
from eyeline.regions import Regions
from eyeline.rereading import Without, read_again, taken_away
from eyeline.spans import Span
from eyeline.writing import writing_of

LEAST_LEFT = 1e-3  # of a head's attention without a region: what it puts out is divided by no less
AT_ONCE = 32  # tokens that are read together
MOST_SURE = 1e-6  # least 1 - p: float32 tells no smaller ones apart


@dataclass(frozen=True)
class ImageValues:
    """What does not change during a generation, worked out once after the prompt has been read."""

    columns: Callable[
        [slice], tuple[Tensor, Tensor]
    ]  # keys and values of some layers, (layer, kv_head, patch, dim)
    norms: Float[Tensor, "layer head patch"]  # of the values as written to the residual stream


def read_image(model: Model, capture: AttentionCapture) -> ImageValues:
    """The keys and values of a capture whose prompt has been read, where they lie, and the norms of the written values."""
    writing_of(model, again=True)
    norms = [
        written_norms(model, capture.image_columns(slice(at, at + 1))[1], [layer])
        for at, layer in enumerate(capture.layers)
    ]
    return ImageValues(capture.image_columns, torch.cat(norms))


def written_norms(
    model: Model, values: Float[Tensor, "layer kv_head patch dim"], layers: Sequence[int]
) -> Float[Tensor, "layer head patch"]:
    """|V_i W_O|, the size of what each head of some layers writes to the residual stream of a visual token's value; float32."""
    norms, grams = [], writing_of(model).grams
    for of_layer, layer in zip(values, layers, strict=True):
        gram = grams[layer]
        grouped = of_layer.float().repeat_interleave(len(gram) // len(of_layer), dim=0)  # (head, patch, dim)
        norms.append(((grouped @ gram) * grouped).sum(-1).clamp(min=0).sqrt())
    return torch.stack(norms)


def likeliest_of(model: Model, steps: Steps) -> Likeliest:
    """The largest logits of each token: kept, or by the model's own norm and head."""
    if steps.likeliest is not None:
        return steps.likeliest
    logits = model.adapter.lm_head(model.hf)(model.adapter.final_norm(model.hf)(steps.hidden))
    return likeliest(logits.to(model.device))


def written_log_probs(
    model: Model,
    hidden: Float[Tensor, "token width"],
    likely: Likeliest,
    token_ids: Int[Tensor, " token"],
) -> Float[Tensor, " token"]:
    """log p of the written tokens, nats, temperature 1. Of one that is none of the likeliest the logit is worked out again."""
    logits = likely.logits.float()
    if likely.entries is None or likely.beyond is None:
        return logits.log_softmax(-1).gather(1, token_ids[:, None])[:, 0]
    normed = model.adapter.final_norm(model.hf)(hidden).to(token_ids.device).float()
    again = (writing_of(model).head.rows(token_ids) * normed).sum(-1)
    same = likely.entries == token_ids[:, None]
    written = torch.where(same.any(-1), logits.where(same, 0.0).sum(-1), again)
    return written - torch.logaddexp(logits.logsumexp(-1), likely.beyond)


def needs_written(kinds: Sequence[str]) -> bool:
    """Whether some features are of what is written."""
    return bool({"odds", "change"} & set(of_heads(kinds)))


def needs_outputs(kinds: Sequence[str]) -> bool:
    """Whether some features are of what heads put out, so that a capture is to keep it where nothing else tells it."""
    return "change" in of_heads(kinds)


@dataclass(frozen=True)
class Written:
    """How the residual stream before the final norm made the model write its tokens."""

    odds: Float[Tensor, "token width"]  # gradient of each token's log p / (1 - p)


def read_written(
    model: Model,
    hidden: Float[Tensor, "token width"],
    likely: Likeliest,
    token_ids: Int[Tensor, " token"],
) -> Written:
    """What the features `odds` and `change` need of the written tokens.

    With n = h / rms(h), logits = W (w n), and q the model's distribution over all tokens but y:
    d log p(y) / (1 - p(y)) / d h = (a - n (n . a) / width) / rms, a = w (W_y - E_q[W]).
    """
    norm: Any = model.adapter.final_norm(model.hf)
    hidden = hidden.float()
    rms = (hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    normed = hidden / rms
    direction = writing_of(model).head.rows(token_ids) - _expected(model, likely, token_ids)
    direction = gain(norm).to(direction.device) * direction
    return Written((direction - normed * (normed * direction).mean(-1, keepdim=True)) / rms)


def _expected(
    model: Model, likely: Likeliest, token_ids: Int[Tensor, " token"]
) -> Float[Tensor, "token width"]:
    """The mean unembedding of all tokens but the written one; those beyond the likeliest count at the mean of all. float32.

    All of a large vocabulary, read for each span, would be a quarter of the operations that attribution takes.
    """
    known, logits = writing_of(model), likely.logits.float()
    if likely.entries is None or likely.beyond is None:
        return known.head.back(logits.scatter(1, token_ids[:, None], -torch.inf).softmax(-1)).float()
    others = logits.masked_fill(likely.entries == token_ids[:, None], -torch.inf)
    shares = torch.cat([others, likely.beyond[:, None]], dim=1).softmax(-1)
    return known.head.mix(shares[:, :-1], likely.entries.long()) + shares[:, -1:] * known.mean_entry


def log_odds(log_probs: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
    """log p / (1 - p) of tokens, nats; finite where p rounds to 1."""
    written = log_probs.clamp(max=-MOST_SURE)
    return written - torch.log(-torch.expm1(written))


@dataclass(frozen=True, eq=False)
class Parts:
    """How a prompt's regions lie in its visual tokens."""

    labels: Int[Tensor, " patch"]  # the region that each lies in
    count: int  # regions
    shares: (
        Float[Tensor, "region patch"] | None
    )  # each region's in each token (leak.py); None: of its own tokens alone, all
    without: Without  # what the image's keys and values are without each region

    def gather(self, values: Float[Tensor, "*row patch"]) -> Float[Tensor, "*row region"]:
        """Values of visual tokens as those of regions."""
        if self.shares is None:
            return pool(values, self.labels, self.count)
        return values @ self.shares.T.to(values)

    @cached_property
    def own(self) -> Int[Tensor, " patch"]:
        """Of each visual token the pair in `without` with the region that it lies in."""
        return self.without.own(self.labels)


def spread_parts(
    model: Model,
    inputs: Mapping[str, Tensor],
    regions: Regions,
    fills: Sequence[Fill],
    layers: Sequence[int],
    kinds: Sequence[str] = KINDS,
) -> Parts:
    """Regions as they have spread, by what their fills have shown; as their own tokens without fills.

    `layers` are those captured. For `change` the image is read again without each region (`rereading.read_again`).
    """
    labels = regions.of_patch.to(model.device)
    without = taken_away(labels, regions.count)
    if needs_outputs(kinds):
        without = read_again(model, inputs, regions, fills, layers)
    return Parts(labels, regions.count, leak_map(fills, regions).to(labels.device), without)


def own_parts(labels: Int[Tensor, " patch"], count: int) -> Parts:
    """Regions as their own tokens: what has spread into others is not known, or stays where it is when they are hidden."""
    return Parts(labels, count, None, taken_away(labels, count))


@dataclass(frozen=True, eq=False)
class Seen:
    """What the tokens of a span see of an image."""

    regions: Float[Tensor, "token region feature"]  # float32, columns kind-major, then layer-major
    cells: Float[Tensor, "token patch"] | None  # weighted sums of the features of each visual token


@dataclass(frozen=True, eq=False)
class Feature:
    """One feature of some layers; float32."""

    regions: Float[Tensor, "layer head token region"]
    cells: Float[Tensor, "layer head token patch"]  # of each visual token, or what of the region's lies in it


def _features(
    model: Model,
    capture: AttentionCapture,
    image: ImageValues,
    steps: Steps,
    written: Written | None,
    parts: Parts,
    kinds: Sequence[str],
) -> Iterator[tuple[slice, list[Feature]]]:
    """Some of the captured layers at a time, and their features, one a kind."""
    visible = capture.visible(steps)
    heads = steps.queries.shape[1]
    columns = image.norms.shape[2]
    if needs_outputs(kinds):
        longest = max(end - start for start, end in capture.text_runs(steps))
        columns = max(columns + len(parts.without.patch), longest)
    for span in layers_at_once(steps, columns):
        part = steps.of_layers(span)
        seen = None if visible is None else visible[span]
        keys, values = image.columns(span)
        weights = attention_to(part, keys, capture.scaling, seen)
        of = {"attention": weights}
        rms = _rms(part)
        if "value" in kinds:
            of["value"] = weights / rms * image.norms[span, :, None]
        found = {kind: Feature(parts.gather(cells), cells) for kind, cells in of.items() if kind in kinds}
        if needs_written(kinds):
            assert written is not None
            outputs = writing_of(model).outputs
            projected = torch.stack([outputs[layer].back(written.odds) for layer in capture.layers[span]])
            # (layer, token, head * dim)
            towards = _towards(projected, values, heads)
            if "odds" in kinds:
                odds = weights / rms * towards
                found["odds"] = Feature(parts.gather(odds), odds)
            if "change" in kinds:
                worth = weights * towards
                put_out = _put_out(capture, part, span, projected, worth)
                found["change"] = _change(
                    part, span, projected, weights, worth, put_out, capture.scaling, seen, parts
                )
        yield span, [found[kind] for kind in kinds]


def _rms(part: Steps) -> Tensor | float:
    """What the norm after attention divides by, (layer, 1, token, 1), where there is one."""
    return 1.0 if part.attention_rms is None else part.attention_rms[:, None, :, None]


def _towards(
    projected: Float[Tensor, "layer token inner"],
    values: Float[Tensor, "layer kv_head column dim"],
    heads: int,
) -> Float[Tensor, "layer head token column"]:
    """How far the value of each column, as each head writes it, goes along each token's gradient."""
    grouped = (
        projected.unflatten(2, (values.shape[1], -1, values.shape[-1])).permute(0, 2, 3, 1, 4).flatten(2, 3)
    )
    return (grouped @ values.transpose(2, 3)).view(len(values), heads, projected.shape[1], -1).float()


def _put_out(
    capture: AttentionCapture,
    part: Steps,
    span: slice,
    projected: Float[Tensor, "layer token inner"],
    worth: Float[Tensor, "layer head token patch"],
) -> Float[Tensor, "layer head token 1"]:
    """How far all that each head of some layers puts out goes along each token's gradient; `worth` is the image's part."""
    heads = worth.shape[1]
    gradient = projected.float().unflatten(2, (heads, -1)).transpose(1, 2)  # (layer, head, token, dim)
    if part.outputs is not None:  # sliding windows let go of columns that they were worked out from
        return (gradient * part.outputs.float()).sum(-1, keepdim=True)
    outputs = torch.zeros_like(gradient)  # of the text
    rows = capture.row(part.start) + torch.arange(len(part), device=worth.device)
    for start, end in capture.text_runs(part):
        keys, values = capture.columns(span, start, end)
        before = None
        if end > capture.row(part.start) + 1:
            before = (torch.arange(start, end, device=worth.device) <= rows[:, None])[None]
        weights = attention_to(part, keys, capture.scaling, before).to(values.dtype)
        grouped = weights.unflatten(1, (values.shape[1], -1)).flatten(2, 3)
        outputs += (grouped @ values).view(gradient.shape)
    return worth.sum(-1, keepdim=True) + (gradient * outputs).sum(-1, keepdim=True)


def _change(
    part: Steps,
    span: slice,
    projected: Float[Tensor, "layer token inner"],
    weights: Float[Tensor, "layer head token patch"],
    worth: Float[Tensor, "layer head token patch"],
    put_out: Float[Tensor, "layer head token 1"],
    scaling: float,
    visible: Bool[Tensor, "layer token patch"] | None,
    parts: Parts,
) -> Feature:
    """The feature `change` of some layers; `worth` is what each weight adds along the token's gradient, `put_out` all do."""
    without, heads = parts.without, weights.shape[1]
    lost, gained = without.summed(weights), torch.zeros_like(weights[..., :1])
    change, cells = without.summed(worth), worth
    if without.keys is not None and without.values is not None:
        seen = None if visible is None else visible[..., without.patch]
        instead = attention_to(part, without.keys[span], scaling, seen)
        worth_instead = instead * _towards(projected, without.values[span], heads)
        gained = without.by_region(instead)
        change = change - without.by_region(worth_instead)
        cells = worth - worth_instead[..., parts.own]
    left = (1 - lost + gained).clamp(min=LEAST_LEFT)
    rms = _rms(part)
    return Feature((put_out * (left - 1) + change) / left / rms, cells / rms)


def token_features(
    model: Model,
    capture: AttentionCapture,
    image: ImageValues,
    steps: Steps,
    written: Written | None,
    parts: Parts,
    kinds: Sequence[str] = KINDS,
    weights: Float[Tensor, "token feature"] | None = None,
) -> Seen:
    """The features of a span's tokens, of regions and, with `weights`, of visual tokens, in one pass.

    Only `odds` and `change` need what is written, which `read_written` reads.
    """
    layers, heads, tokens, _ = steps.queries.shape
    weight = None if weights is None else weights.view(tokens, len(kinds), layers, heads)
    cells = None if weights is None else weights.new_zeros(tokens, image.norms.shape[2])
    columns: list[list[Tensor]] = [[] for _ in kinds]
    for span, features in _features(model, capture, image, steps, written, parts, kinds):
        for kind, feature in enumerate(features):
            columns[kind].append(feature.regions.flatten(0, 1))
            if weight is not None and cells is not None:
                cells += torch.einsum("tlh,lhtp->tp", weight[:, kind, span], feature.cells)
    return Seen(_side_by_side(columns), cells)


def _side_by_side(
    columns: Sequence[Sequence[Float[Tensor, "_some token region"]]],
) -> Float[Tensor, "token region feature"]:
    """The parts of each kind one after the other, kind by kind."""
    return torch.cat([torch.cat(list(each)) for each in columns]).permute(1, 2, 0)


@dataclass(frozen=True, eq=False)
class Read:
    """What an estimator reads of the tokens of spans, one span after the other."""

    features: Float[Tensor, "token region feature"]  # float32
    log_odds: Float[Tensor, " token"]  # of the written tokens, nats
    log_probs: Float[Tensor, " token"]  # the same tokens', nats
    cells: Float[Tensor, "token patch"] | None = None  # weighted sums of the features of each visual token


def read_steps(
    model: Model,
    capture: AttentionCapture,
    image: ImageValues,
    steps: Steps,
    token_ids: Int[Tensor, " token"],
    parts: Parts,
    kinds: Sequence[str] = KINDS,
    weigh: Callable[[Float[Tensor, " token"]], Float[Tensor, "token feature"]] | None = None,
) -> Read:
    """What is read of the steps of a span, taken from the capture; `token_ids` are the span's tokens.

    `weigh` gives the weights of each token's features from its log-odds, which visual tokens are summed by; of heads as a set
    visual tokens are summed by `change`, all heads alike.
    """
    likely = likeliest_of(model, steps)
    log_probs = written_log_probs(model, steps.hidden, likely, token_ids)
    odds = log_odds(log_probs)
    written = read_written(model, steps.hidden, likely, token_ids) if needs_written(kinds) else None
    weights = None if weigh is None else _changes(steps) if is_set(kinds) else weigh(odds)
    seen = token_features(model, capture, image, steps, written, parts, of_heads(kinds), weights)
    features = as_set(seen.regions) if is_set(kinds) else seen.regions
    return Read(features, odds, log_probs, seen.cells)


def _changes(steps: Steps) -> Float[Tensor, "token feature"]:
    """Weights of the features of each head: 1 for `change`."""
    layers, heads, tokens, _ = steps.queries.shape
    weights = steps.queries.new_zeros(tokens, len(KINDS), layers * heads, dtype=torch.float32)
    weights[:, KINDS.index("change")] = 1
    return weights.flatten(1)


def captured_features(
    model: Model,
    capture: AttentionCapture,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    parts: Parts,
    kinds: Sequence[str] = KINDS,
) -> Read:
    """What is read of spans of a trace that a capture has seen; in the same blocks of tokens as `attribute` reads.

    Raises `UnsupportedModelError` for numbers that are not finite.
    """
    image = read_image(model, capture)
    wanted = torch.cat([torch.arange(span.start, span.end) for span in spans])
    starts = (wanted // AT_ONCE).unique() * AT_ONCE
    each = []
    for start in starts.tolist():
        steps = capture.take(start, min(start + AT_ONCE, len(trace_ids)))
        each.append(
            read_steps(model, capture, image, steps, trace_ids[start : start + len(steps)], parts, kinds)
        )
    there = (starts[:, None] + torch.arange(AT_ONCE)).flatten()
    at = torch.searchsorted(there, wanted).to(each[0].log_odds.device)
    read = Read(
        *(
            torch.cat([getattr(one, name) for one in each])[at]
            for name in ("features", "log_odds", "log_probs")
        )
    )
    check_finite(model, "features", read.features, read.log_odds)
    return read


def pool(
    values: Float[Tensor, "*row patch"], labels: Int[Tensor, " patch"], num_regions: int
) -> Float[Tensor, "*row region"]:
    """Sums over the visual tokens of each region; a region without tokens gets zeros."""
    return values.new_zeros(*values.shape[:-1], num_regions).index_add_(-1, labels, values)
