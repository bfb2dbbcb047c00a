"""Eyeline's estimators on a given trace, which is read once, and with them the linear map on attention of arXiv 2604.16587.

What a feature is stands in features.py, how weights are learned in training/weights.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.ablation import read_trace
from eyeline.attention import AttentionCapture
from eyeline.estimator import Estimator
from eyeline.features import KINDS, Read, captured_features
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span

Order = Callable[[bool], Float[Tensor, "span region"]]  # of whether they are shown
Together = Callable[[Bool[Tensor, "subset region"]], Float[Tensor, "span subset"]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The effects of single regions, and those of regions hidden together, where they are no sums."""

    effects: Float[Tensor, "span region"]
    together: Together
    order: Order  # by which regions come first where several are hidden together, or shown alone


def order_of(
    estimator: Estimator, read: Read, lengths: Int[Tensor, " span"], regions: int, *, showing: bool
) -> Float[Tensor, "span region"]:
    """How early each region of a span comes, one after the other, where they are to do most to the predicted drop.

    Hiding, it is the one that adds most to the drop of those before it; showing, the one that takes most from the drop of
    all that are not shown yet. Where predictions are sums, both are the order of the effects. It takes no pass through the model.
    """
    spans = torch.arange(len(lengths))
    order = torch.zeros(len(lengths), regions)
    each = torch.eye(regions, device=read.features.device)
    done = each.new_zeros(len(lengths), regions)
    for place in range(regions):
        subsets = torch.maximum(done[..., None], each)
        if showing:
            subsets = 1 - subsets
        subsets = subsets.repeat_interleave(lengths.to(each.device), dim=0)
        drops = estimator.drops(
            estimator.scores(read.features, read.log_odds, subsets), read.log_odds, lengths
        )
        wanted = -drops if showing else drops
        following = wanted.masked_fill(done.bool(), -torch.inf).argmax(1)
        done[spans, following] = 1.0
        order[spans, following.cpu()] = float(regions - place)
    return order


def read_spans(
    model: Model,
    inputs: Inputs,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    regions: Regions,
    kinds: Sequence[str] = KINDS,
    layers: Sequence[int] | None = None,
) -> Read:
    """What estimators read of all layers, or some, in one teacher-forced pass; columns kind-major, in the order of `kinds`."""
    labels, trace_ids = regions.of_patch.to(model.device), trace_ids.to(model.device)
    with torch.inference_mode(), AttentionCapture(model, inputs, layers=layers) as capture:
        read_trace(model, inputs, trace_ids)
        return captured_features(model, capture, trace_ids, spans, labels, regions.count, kinds)


def estimated(estimator: Estimator) -> Callable[..., Prediction]:
    """A method with a `Baseline`'s arguments: the drops that an estimator predicts, before its curve, nats.

    An estimator of kind `attention` alone with the link `identity` is the paper's own linear map w . f_{S,k}
    (arXiv 2604.16587).
    """

    def predict(
        model: Model,
        inputs: Inputs,
        trace_ids: Int[Tensor, " token"],
        spans: Sequence[Span],
        regions: Regions,
    ) -> Prediction:
        count = len(model.adapter.layers(model.hf))
        layers = estimator.layers(count)
        read = read_spans(model, inputs, trace_ids, spans, regions, estimator.kinds, layers)
        here = estimator.of_layers(layers, count).to(model.device)
        lengths = torch.tensor([span.end - span.start for span in spans])

        def together(subsets: Bool[Tensor, "subset region"]) -> Float[Tensor, "span subset"]:
            scores = here.scores(read.features, read.log_odds, subsets.to(read.features).T)
            return here.drops(scores, read.log_odds, lengths)

        alone = together(torch.eye(regions.count, dtype=torch.bool))

        def order(shown: bool) -> Float[Tensor, "span region"]:
            return order_of(here, read, lengths, regions.count, showing=shown)

        return Prediction(alone, together, order)

    return predict
