"""GLM-4.5V and GLM-4.6V, mixture of experts: no norm between attention and the residual stream."""

from dataclasses import replace

from eyeline.adapters import glm4v

ADAPTER = replace(
    glm4v.ADAPTER, family="glm4v_moe", models=("GLM-4.5V", "GLM-4.6V"), norm_after_attention=None
)
