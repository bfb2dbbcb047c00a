"""The rivals, all behind one signature: what does each region of the image contribute to each span of a given trace?

Every rival is one function of a file here; `baseline` finds it by name. Effects are in the rival's own unit: only their
order and ratios count. Rivals that give visual tokens values and sum them over a region have a second reading, the mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.ablation import Method
from eyeline.errors import DataError
from eyeline.evaluation.baselines.attention_weights import attention_rollout, raw_attention
from eyeline.evaluation.baselines.centre import centre_prior
from eyeline.evaluation.baselines.gradient import input_gradient, integrated_gradients
from eyeline.evaluation.baselines.hiding import exhaustive, random_effects, regression
from eyeline.evaluation.baselines.ifr import information_flow
from eyeline.evaluation.baselines.lrp import attn_lrp, cp_lrp
from eyeline.evaluation.baselines.tam import token_activation_map
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span

# (model, inputs of one prompt, the trace's token ids, its spans, regions of its images) -> one effect for each span and region
Baseline = Callable[
    [Model, Inputs, Int[Tensor, " token"], Sequence[Span], Regions], Float[Tensor, "span region"]
]


@dataclass(frozen=True)
class MeanOverRegions:
    """A rival's other reading, of the same pass: the mean over a region's visual tokens in place of their sum.

    0 for a region without any.
    """

    rival: Baseline

    def __call__(
        self, model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
    ) -> Float[Tensor, "span region"]:  # fmt: skip
        return self.of(self.rival(model, inputs, trace_ids, spans, regions), regions)

    def of(self, sums: Float[Tensor, "span region"], regions: Regions) -> Float[Tensor, "span region"]:
        return sums / torch.bincount(regions.of_patch, minlength=regions.count).clamp(min=1).to(sums)


BASELINES: dict[str, Baseline] = {
    "random": random_effects,
    "raw-attention": raw_attention,
    "rollout": attention_rollout,
    "input-gradient": input_gradient,
    "integrated-gradients": integrated_gradients,
    "attn-lrp": attn_lrp,
    "cp-lrp": cp_lrp,
    "tam": token_activation_map,
    "ifr": information_flow,
    "centre": centre_prior,
}
MEAN = "-mean"  # ends the name of a reading
READ_TWICE = ("tam", "rollout", "raw-attention", "input-gradient", "attn-lrp", "ifr")
BASELINES |= {name + MEAN: MeanOverRegions(BASELINES[name]) for name in READ_TWICE}
# Those that hide regions, by the way of hiding
HIDING: dict[str, Callable[[Method], Baseline]] = {
    "exhaustive": lambda method: partial(exhaustive, method=method),
    **{
        f"regression-{subsets}": lambda method, subsets=subsets: regression(subsets, method=method)
        for subsets in (32, 64, 256, 1024)
    },
    "ridge-256": lambda method: regression(256, penalty="ridge", method=method),
}
NAMES = (*BASELINES, *HIDING)


def baseline(name: str, method: Method) -> Baseline:
    """The rival of that name; `method` is how it hides regions, where it does. Raises `DataError` for another name."""
    if name in HIDING:
        return HIDING[name](method)
    if name not in BASELINES:
        raise DataError(
            f"No method {name!r}; expected some of {', '.join(NAMES)}, `eyeline` or `eyeline-whole`."
        )
    return BASELINES[name]
