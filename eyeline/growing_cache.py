"""A cache with room for what is still to come: a new token is written beside the others, which nobody copies for it.

The model's own cache copies all keys and values for every token, which is most of the time where many rows are written at once.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 256  # tokens more, whenever there is no room left


def grow_in_place(cache: Any) -> None:
    """Gives the layers of a cache room; layers of other kinds, such as those of sliding windows, stay as they are."""
    cache.layers[:] = [_Growing(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]


class _Growing(DynamicLayer):
    """`keys` and `values` are what is filled of two larger tensors."""

    keys: Any
    values: Any

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys, layer.values
        self._larger: tuple[Tensor, Tensor] | None = None

    def update(
        self,
        key_states: Float[Tensor, "row kv_head token dim"],
        value_states: Float[Tensor, "row kv_head token dim"],
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor]:
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if self._larger is None or end > self._larger[0].shape[2]:
            self._larger = (self._enlarged(self.keys, end), self._enlarged(self.values, end))
        for larger, new in zip(self._larger, (key_states, value_states), strict=True):
            larger[:, :, start:end] = new
        self.keys, self.values = (larger[:, :, :end] for larger in self._larger)
        return self.keys, self.values

    def batch_select_indices(self, indices: Int[Tensor, " row"]) -> None:
        super().batch_select_indices(indices)
        self._larger = None

    def _enlarged(self, filled: Tensor, end: int) -> Tensor:
        rows, heads, tokens, size = filled.shape
        larger = torch.empty(rows, heads, end + ROOM, size, dtype=filled.dtype, device=filled.device)
        larger[:, :, :tokens] = filled
        return larger
