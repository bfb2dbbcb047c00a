"""The rivals, all behind one signature: what does each region of the image contribute to each span of a given trace?

Every rival is one function of a file here; `baseline` finds it by name. Effects are in the rival's own unit: only their
order and ratios count.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor

from eyeline.ablation import Method
from eyeline.errors import DataError
from eyeline.evaluation.baselines.attention import attention_rollout, raw_attention
from eyeline.evaluation.baselines.gradient import input_gradient, integrated_gradients
from eyeline.evaluation.baselines.hiding import exhaustive, random_effects, regression
from eyeline.evaluation.baselines.lrp import attn_lrp, cp_lrp
from eyeline.evaluation.baselines.tam import token_activation_map
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span

# (model, inputs of one prompt, the trace's token ids, its spans, regions of its images) -> one effect for each span and region
Baseline = Callable[
    [Model, Inputs, Int[Tensor, " token"], Sequence[Span], Regions], Float[Tensor, "span region"]
]
BASELINES: dict[str, Baseline] = {
    "random": random_effects,
    "raw-attention": raw_attention,
    "rollout": attention_rollout,
    "input-gradient": input_gradient,
    "integrated-gradients": integrated_gradients,
    "attn-lrp": attn_lrp,
    "cp-lrp": cp_lrp,
    "tam": token_activation_map,
}
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
        raise DataError(f"No method {name!r}; expected some of {', '.join(NAMES)}, or `eyeline`.")
    return BASELINES[name]
