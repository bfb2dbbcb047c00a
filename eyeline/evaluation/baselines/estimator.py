"""Eyeline's estimators on a given trace, which is read once, and with them the linear map on attention of arXiv 2604.16587.

What a feature is stands in features.py, how weights are fitted in training/fit.py.
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

ASKED = 512  # random subsets whose predicted drops tell the order of regions
Together = Callable[[Bool[Tensor, "subset region"]], Float[Tensor, "span subset"]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The effects of single regions, and those of regions hidden together, where they are no sums."""

    effects: Float[Tensor, "span region"]
    together: Together
    order: Float[Tensor, "span region"]  # by which regions come first where several are hidden together


def order_of(together: Together, regions: int) -> Float[Tensor, "span region"]:
    """What hiding each region adds to the predicted drop of others that are hidden or not, on average, nats.

    The linear part of the predictions over random subsets, by least squares: of predictions that are sums, the effects
    themselves, and otherwise near the Banzhaf value. It takes no pass through the model.
    """
    subsets = torch.rand(ASKED, regions, generator=torch.Generator().manual_seed(0)) < 0.5
    drops = together(subsets).float().cpu().T  # (subset, span)
    inputs = torch.cat([subsets.float(), torch.ones(ASKED, 1)], dim=1)
    return torch.linalg.lstsq(inputs, drops).solution[:-1].T


def read_spans(
    model: Model,
    inputs: Inputs,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    regions: Regions,
    kinds: Sequence[str] = KINDS,
) -> Read:
    """What estimators read, from one teacher-forced pass; columns are kind-major, in the order of `kinds`."""
    labels, trace_ids = regions.of_patch.to(model.device), trace_ids.to(model.device)
    with torch.inference_mode(), AttentionCapture(model, inputs) as capture:
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
        read = read_spans(model, inputs, trace_ids, spans, regions, estimator.kinds)
        here = estimator.to(model.device)
        lengths = torch.tensor([span.end - span.start for span in spans])

        def together(subsets: Bool[Tensor, "subset region"]) -> Float[Tensor, "span subset"]:
            scores = here.scores(read.features, read.log_odds, subsets.to(read.features).T)
            return here.drops(scores, read.log_odds, lengths)

        alone = together(torch.eye(regions.count, dtype=torch.bool))
        return Prediction(alone, together, order_of(together, regions.count))

    return predict
