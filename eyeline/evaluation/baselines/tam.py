"""Token Activation Map (arXiv 2506.23270): where in the image the written token's logit is already high.

No gradients: the last hidden states at the visual tokens, multiplied with the written token's row of the unembedding,
cleaned of what earlier text explains and smoothed. Of the unembedding only the rows of tokens in the text are read.
"""

from collections.abc import Sequence
from itertools import dropwhile, takewhile

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.features import pool
from eyeline.model import Inputs, Model
from eyeline.projections import head_of
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.teacher_forcing import Trace, read, see, teacher_force

WINDOW = 3  # cells along a side of the rank Gaussian filter


def token_activation_map(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """The maps of a span's tokens, averaged over the tokens and summed over a region's visual tokens.

    The paper maps single tokens and says nothing of spans: each token's map is finished by itself, filter included,
    because what interferes differs from token to token; the mean weighs tokens alike, as their maps share one scale.

    Text that may interfere is the question and what the model wrote before, as in the authors' code. A token of the
    question is read at its own position, a written one at the position that predicts it; the target's own is left out.
    """
    with torch.inference_mode():
        trace = teacher_force(model, inputs, trace_ids)
        states, _ = read(model, trace, see(model, trace, trace.pixel_values[None]), 1, use_cache=False)
        states = states[0].float()
        question = question_positions(model, trace)
        text_ids = torch.cat([trace.ids[0, question], trace_ids.to(question)])
        text_states = torch.cat([states[question], states[trace.prompt_length - 1 :]])
        rows = head_of(model.hf, model.adapter).rows(text_ids)  # (text, dim)
        raw = activations(rows, states[trace.patches])  # the map of every text token, before any cleaning
        order = torch.arange(len(text_ids), device=text_ids.device)
        labels = regions.of_patch.to(text_ids.device)
        effects = []
        for span in spans:
            targets = order[len(question) :][span.start : span.end]
            logits = activations(rows[targets], text_states)
            earlier = order < targets[:, None]
            other = earlier & (text_ids != text_ids[targets][:, None])  # ids differ where strings do
            maps = normalise(remove_interference(raw[targets], raw, logits, other), logits, earlier)
            smooth = [
                rank_gaussian_filter(part.unflatten(1, (image.rows, image.cols))).flatten(1)
                for image, part in zip(trace.images, maps.split([*map(len, trace.images)], 1), strict=True)
            ]
            effects.append(pool(torch.cat(smooth, 1).mean(0), labels, regions.count))
    return torch.stack(effects)


def question_positions(model: Model, trace: Trace) -> Int[Tensor, " position"]:
    """Where the question stands: after the last image, between the special tokens of the template.

    The authors list each family's markers by hand (`prompt_id`); the tokenizer knows them all as special.
    """
    added = model.tokenizer.added_tokens_decoder
    special, ids = {token_id for token_id, token in added.items() if token.special}, trace.ids[0].tolist()
    after = range(int(trace.patches[-1]) + 1, trace.prompt_length)
    begun = dropwhile(lambda at: ids[at] in special, after)
    text = takewhile(lambda at: ids[at] not in special, begun)
    return torch.tensor([*text], dtype=torch.long, device=trace.ids.device)


def activations(
    rows: Float[Tensor, "token dim"], states: Float[Tensor, "position dim"]
) -> Float[Tensor, "token position"]:
    """s_j = max(0, h_j . W[y]): the logit of each token at each position, where it is positive."""
    return (rows @ states.T).clamp_(min=0)


def remove_interference(
    maps: Float[Tensor, "token patch"],
    text_maps: Float[Tensor, "text patch"],
    logits: Float[Tensor, "token text"],
    other: Bool[Tensor, "token text"],
) -> Float[Tensor, "token patch"]:
    """Estimated causal inference: what of a map is not a copy of earlier tokens' maps.

    Interference I is the mean of the text's raw maps, weighted by the target's logits at the `other` tokens, earlier ones
    whose string is not its own; v' = max(0, v - a I), a = <v, I> / <I, I> by least squares. Without interference, v' = v.
    """
    weights = logits * other
    interference = weights / (weights.sum(1, keepdim=True) + 1e-8) @ text_maps
    power = interference.square().sum(1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    scale = (maps * interference).sum(1, keepdim=True) / power
    return (maps - scale * interference).clamp_(min=0)


def normalise(
    maps: Float[Tensor, "token patch"],
    logits: Float[Tensor, "token text"],
    earlier: Bool[Tensor, "token text"],
) -> Float[Tensor, "token patch"]:
    """The maps after min-max scaling of image and earlier text together, so that text can outshine the image.

    Where all values are the same there is nothing to see: zeros.
    """
    low = torch.minimum(maps.amin(1), logits.masked_fill(~earlier, torch.inf).amin(1))[:, None]
    high = torch.maximum(maps.amax(1), logits.masked_fill(~earlier, -torch.inf).amax(1))[:, None]
    return (maps - low) / torch.where(high > low, high - low, 1)


def rank_gaussian_filter(maps: Float[Tensor, "token row col"]) -> Float[Tensor, "token row col"]:
    """Rank Gaussian filter: a Gaussian over the sorted values of each 3 x 3 window, edges reflected.

    Rank q from -4 to 4 weighs exp(-q^2 / 2c^2), c = std / mean of the window: an even window keeps its median, an uneven
    one is averaged. A window whose mean is not positive gives 0.
    """
    _, rows, cols = maps.shape
    padded = maps[:, _reflected(rows)][:, :, _reflected(cols)]
    ranked = padded.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1).flatten(-2).sort(-1).values
    mean = ranked.mean(-1, keepdim=True)
    spread = ranked.std(-1, correction=0, keepdim=True) / mean
    ranks = torch.arange(WINDOW**2, device=maps.device) - WINDOW**2 // 2
    weights = torch.exp(-ranks.square() / (2 * spread.square()).clamp(min=1e-12))  # c = 0: the median alone
    smooth = (ranked * weights).sum(-1) / weights.sum(-1)
    return torch.where(mean[..., 0] > 0, smooth, 0)


def _reflected(size: int) -> list[int]:
    """Indices of a side padded by one cell; a side of one cell has only itself to show."""
    return [min(1, size - 1), *range(size), max(size - 2, 0)]
