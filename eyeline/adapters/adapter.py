"""What a model family answers, so that nothing else reads the parts of a transformers model by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class ImageGrid:
    """Where one image lies in a prompt: its visual tokens, row by row from the top left."""

    positions: Int[Tensor, " patch"]  # indexes in input_ids, padding counted
    rows: int
    cols: int

    def __len__(self) -> int:
        return self.rows * self.cols


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What the numbers of boxes and points mean that a family writes into its text."""

    unit: Literal["share", "pixels"] = (
        "share"  # of an image's sides, or pixels of the image as it was processed
    )
    size: int = 1000  # what a whole side counts; of pixels, the side of a visual token
    bare: bool = False  # boxes stand in the answer as plain lists of four numbers too, not only by name


@dataclass(frozen=True, slots=True)
class Adapter:
    """One model family. `hf` below is the transformers model with its language-modelling head.

    The defaults hold for every family so far; a file in this folder states only what differs.
    """

    family: str  # config.model_type
    models: tuple[str, ...]  # published ones, as people call them
    thinking_markers: tuple[str, str] = ("<think>", "</think>")  # open, close; matched on text, across tokens
    answer_markers: tuple[str, ...] = ()  # removed from the text, like the thinking markers
    text_path: str = "model.language_model"
    vision_path: str = "model.visual"
    norm_after_attention: str | None = None  # submodule of a decoder layer, applied to the output of o_proj
    coordinates: Coordinates = Coordinates()
    deepstack: bool = False  # visual features are added again after the first decoder layers

    @property
    def kept_whole(self) -> tuple[str, ...]:
        """Modules that are not quantised where weights are made smaller: little is won, and regions are cut by the tower."""
        return self.vision_path, "lm_head"

    def text_model(self, hf: Any) -> nn.Module:
        return hf.get_submodule(self.text_path)

    def layers(self, hf: Any) -> Sequence[nn.Module]:
        """The decoder layers, first to last."""
        return list(self.text_model(hf).get_submodule("layers").children())

    def self_attention(self, layer: nn.Module) -> nn.Module:
        """The attention of a decoder layer: has `q_proj`, `k_proj`, `v_proj`, `o_proj` and `scaling`."""
        return layer.get_submodule("self_attn")

    def sliding_windows(self, hf: Any) -> list[int | None]:
        """How far back each decoder layer sees, in tokens; None where it sees everything."""
        return [getattr(self.self_attention(layer), "sliding_window", None) for layer in self.layers(hf)]

    def attention_norm(self, layer: nn.Module) -> nn.Module | None:
        """The RMS norm between `o_proj` and the residual sum, in families that have one."""
        return None if self.norm_after_attention is None else layer.get_submodule(self.norm_after_attention)

    def final_norm(self, hf: Any) -> nn.Module:
        return self.text_model(hf).get_submodule("norm")

    def lm_head(self, hf: Any) -> nn.Module:
        return hf.get_submodule("lm_head")

    def vision_tower(self, hf: Any) -> nn.Module:
        return hf.get_submodule(self.vision_path)

    def text_config(self, hf: Any) -> Any:
        return hf.config.text_config

    def merge_size(self, hf: Any) -> int:
        """Vision patches along one side of a visual token of the language model."""
        return int(hf.config.vision_config.spatial_merge_size)

    def patch_size(self, hf: Any) -> int:
        """Pixels along one side of a vision patch."""
        return int(hf.config.vision_config.patch_size)

    def image_token_id(self, hf: Any) -> int:
        return int(hf.config.image_token_id)

    def deepstack_layers(self, hf: Any) -> int:
        """How many of the first decoder layers get visual features added to their output."""
        return len(hf.config.vision_config.deepstack_visual_indexes) if self.deepstack else 0

    def visual_features(self, output: Any, grids: Sequence[ImageGrid]) -> list[Float[Tensor, "patch dim"]]:
        """Merged features of each image, row by row, from the output of the vision tower's forward.

        Only `pooler_output` is in raster order: inside the towers patches lie in merge blocks, in Qwen2.5-VL
        also in windows.
        """
        return list(torch.split(output.pooler_output, [len(grid) for grid in grids]))
