"""Features times weights: Eyeline's estimators, and with them the linear map on attention of arXiv 2604.16587.

What a feature is stands in features.py, how weights are fitted in training/fit.py; here a given trace is read once.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.ablation import read_trace
from eyeline.attention import AttentionCapture
from eyeline.estimator import Estimator
from eyeline.features import KINDS, captured_features
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span


def span_features(
    model: Model,
    inputs: Inputs,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    regions: Regions,
    kinds: Sequence[str] = KINDS,
) -> Float[Tensor, "span region feature"]:
    """The features that estimators read, from one teacher-forced pass; columns are kind-major, in the order of `kinds`.

    Summed over a span's tokens, as effects are, and over a region's visual tokens.
    """
    labels, trace_ids = regions.of_patch.to(model.device), trace_ids.to(model.device)
    with torch.inference_mode(), AttentionCapture(model, inputs) as capture:
        read_trace(model, inputs, trace_ids)
        return captured_features(model, capture, trace_ids, spans, labels, regions.count, kinds)


def estimated(estimator: Estimator) -> Callable[..., Float[Tensor, "span region"]]:
    """A `Baseline`: an estimator's scores w . f_{S,k} (arXiv 2604.16587), which add up over the regions of a subset.

    An estimator of kind `attention` alone is the paper's own linear map.
    """

    def effects(
        model: Model,
        inputs: Inputs,
        trace_ids: Int[Tensor, " token"],
        spans: Sequence[Span],
        regions: Regions,
    ) -> Float[Tensor, "span region"]:
        features = span_features(model, inputs, trace_ids, spans, regions, estimator.kinds)
        return features @ estimator.weights.to(features)

    return effects
