"""GLM-4.1V-Thinking. Each attention output passes an RMS norm before it joins the residual stream."""

from eyeline.adapters.adapter import Adapter, Coordinates

ADAPTER = Adapter(
    family="glm4v",
    models=("GLM-4.1V-9B-Thinking",),
    answer_markers=("<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>"),
    coordinates=Coordinates(bare=True),
    norm_after_attention="post_self_attn_layernorm",
)
