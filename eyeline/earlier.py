"""Earlier text -> what a span takes from it: features of the tokens before it, and by how much hiding them lowers its log-odds.

Features are read off keys and values that the model's cache holds already, after decoding and beside it, and pooled over all
heads, so that nothing in them belongs to one head or layer. Of token t and an earlier one v, with A the attention weight and w
the norm of the value written to the residual stream, |V_v W_O|:

- `attention`: the mean of A over heads;
- `value`: what t gives to earlier tokens in all, shared among them as the sums of A w are;
- `both`: in the same unit, the sum of A A w, which only counts where a head looks hard.

All are shares of attention, whatever the size of a model's values: weights that are learned on one model fit another.
Weights for them are fitted on measured falls (text_ablation.py), two sets mixed by the token's log-odds as for regions. What
the tokens of an earlier span add up to makes the game of sources (links.py).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from eyeline.attention import Steps, attention_to, layers_at_once
from eyeline.capture import AttentionCapture
from eyeline.features import written_norms
from eyeline.model import Model

KINDS = ("attention", "value", "both")
LEAST = 1e-9  # of a total that shares are of


def as_shares(means: Float[Tensor, "token earlier feature"]) -> Float[Tensor, "token earlier feature"]:
    """Of the means over heads of A, A w and A A w of all earlier tokens: the features, in shares of attention."""
    looks, written, seen = means.unbind(-1)
    turned = looks.sum(-1, keepdim=True) / written.sum(-1, keepdim=True).clamp(min=LEAST)
    return torch.stack([looks, written * turned, seen * turned], dim=-1)


class EarlierText:
    """Reads what spans see of the text before them, one span after the other; the norms of values are kept."""

    def __init__(self, model: Model, capture: AttentionCapture) -> None:
        self.model, self.capture = model, capture
        self._norms: list[Float[Tensor, "layer head token"]] = []
        self._known = 0  # tokens whose norms are kept

    def features(self, steps: Steps) -> Float[Tensor, "token earlier feature"]:
        """Of a span's tokens and all before its last; 0 for a token and those that are not before it. float32."""
        layers, heads, tokens, _ = steps.queries.shape
        first, end = self.capture.prompt_length, steps.start + tokens - 1
        found = torch.zeros(len(KINDS), tokens, end, device=steps.queries.device)
        norms = self._norms_of(end)
        before = (
            torch.arange(end, device=found.device)
            < steps.start + torch.arange(tokens, device=found.device)[:, None]
        )
        for span in layers_at_once(steps, end):
            keys, _ = self.capture.columns(span, first, first + end)
            part = steps.of_layers(span)
            weights = attention_to(part, keys, self.capture.scaling, before[None])
            values = weights * norms[span, :, None]
            if part.attention_rms is not None:
                values = values / part.attention_rms[:, None, :, None]
            for kind, each in enumerate((weights, values, weights * values)):
                found[kind] += each.sum((0, 1))
        return as_shares(found.permute(1, 2, 0) / (layers * heads))

    def _norms_of(self, end: int) -> Float[Tensor, "layer head token"]:
        """Norms of the values of the first tokens as heads write them; worked out once for each token."""
        if self._known < end:
            first = self.capture.prompt_length
            _, values = self.capture.columns(slice(None), first + self._known, first + end)
            self._norms.append(written_norms(self.model, values, self.capture.layers))
            self._known = end
        self._norms = [torch.cat(self._norms, dim=2)] if self._norms else []
        if not self._norms:
            layers, heads = (
                len(self.capture.layers),
                self.model.adapter.text_config(self.model.hf).num_attention_heads,
            )
            return torch.zeros(layers, heads, 0, device=self.model.device)
        return self._norms[0][:, :, :end]
