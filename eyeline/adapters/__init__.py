"""Model families: one file each, chosen by `config.model_type`. To add one: its file, and one line here."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from eyeline.adapters import glm4v, glm4v_moe, glm46v, qwen2_5_vl, qwen3_vl, qwen3_vl_moe
from eyeline.adapters.adapter import Adapter, ImageGrid
from eyeline.errors import PromptError, UnsupportedModelError

__all__ = ["ADAPTERS", "Adapter", "ImageGrid", "adapter_of", "image_grids"]

ADAPTERS: dict[str, Adapter] = {
    module.ADAPTER.family: module.ADAPTER
    for module in (qwen3_vl, qwen3_vl_moe, glm4v, glm4v_moe, glm46v, qwen2_5_vl)
}


def adapter_of(hf: Any) -> Adapter:
    """The adapter of a transformers model, or of its configuration.

    Raises `UnsupportedModelError` for a model without vision, of a family without adapter, or without a head.
    """
    config = getattr(hf, "config", hf)
    family = getattr(config, "model_type", None) or type(hf).__name__
    supported = ", ".join(sorted(ADAPTERS))
    if family in ADAPTERS:
        if hf is not config and not hasattr(hf, "lm_head"):
            raise UnsupportedModelError(
                f"{type(hf).__name__} has no language-modelling head and cannot generate; "
                "load the model with AutoModelForImageTextToText."
            )
        return ADAPTERS[family]
    if getattr(config, "vision_config", None) is None:
        raise UnsupportedModelError(
            f"The model family {family!r} takes no images; Eyeline attributes vision-language models "
            f"(supported: {supported})."
        )
    raise UnsupportedModelError(
        f"No adapter for the model family {family!r} (supported: {supported}); "
        f"to add one, write adapters/{family}.py (docs/adding-a-model.md)."
    )


def image_grids(hf: Any, inputs: Mapping[str, Tensor]) -> list[ImageGrid]:
    """Where each image of a prompt lies, in order; positions are on the device of `input_ids`.

    `inputs` is one prompt as `generate` takes it, padded or not. Only the first placeholders are read, as
    many as the images need. Raises `PromptError` when there are fewer.
    """
    if inputs.get("image_grid_thw") is None:
        return []
    adapter = adapter_of(hf)
    merge = adapter.merge_size(hf)
    sizes = [(rows // merge, cols // merge) for _, rows, cols in inputs["image_grid_thw"].tolist()]
    counts = [rows * cols for rows, cols in sizes]
    positions = (inputs["input_ids"][0] == adapter.image_token_id(hf)).nonzero()[:, 0]
    if len(positions) < sum(counts):
        raise PromptError(
            f"The prompt holds {len(positions)} image tokens, but its images need {sum(counts)}; "
            "build the inputs with model.inputs(images, prompt)."
        )
    groups = positions[: sum(counts)].split(counts)
    return [ImageGrid(group, rows, cols) for group, (rows, cols) in zip(groups, sizes, strict=True)]
