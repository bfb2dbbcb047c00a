"""A thinking vision-language model as a plain value: its parts, and the inputs of one question.

Where it comes from is left to loading.py, what it is asked to stream.py; `StreamingModel` puts both before the user.
"""

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from eyeline import adapters
from eyeline.adapters import Adapter, ImageGrid
from eyeline.errors import ContextError, ImageError, PromptError, UnsupportedModelError
from eyeline.images import Picture, open_images
from eyeline.projections import device_of

Inputs = dict[str, Tensor]
# A question, or turns {"role", "content"}: content is text or parts {"type": "text", "text"} and {"type": "image"}
Prompt = str | Sequence[Mapping[str, Any]]

# Process-wide, because a model is: how many blocks keep its `rope_deltas`, and what to put back when the last one ends
_kept: "weakref.WeakKeyDictionary[Any, tuple[int, Any]]" = weakref.WeakKeyDictionary()
_keeping = threading.Lock()  # guards `_kept`


@dataclass(frozen=True, eq=False)
class Model:
    """A transformers model with what it needs to read an image and a question."""

    name: str  # what it was loaded as: the embedded name, the folder, or the id
    hf: Any  # the transformers model with its head, in `eval`
    tokenizer: Any
    image_processor: Any
    adapter: Adapter
    chat_template: str

    def __repr__(self) -> str:
        text = self.adapter.text_config(self.hf)
        opens, closes = self.adapter.thinking_markers
        size = sum(weight.numel() for weight in self.hf.parameters())
        return (
            f"Model {self.name!r} of the family {self.adapter.family}\n"
            f"  {size / 1e6:,.1f} million parameters in {len(self.adapter.layers(self.hf))} layers of "
            f"{text.num_attention_heads} heads, {str(self.hf.dtype).removeprefix('torch.')} on {self.device}\n"
            f"  context of {self.context_length:,} tokens, thinking between {opens} and {closes}"
        )

    @property
    def device(self) -> torch.device:
        """Where it takes its inputs, and where attribution is worked out; its layers may lie on others."""
        return device_of(self.hf.get_input_embeddings())

    @property
    def context_length(self) -> int:
        """Tokens that prompt and generated text may hold together."""
        return int(self.adapter.text_config(self.hf).max_position_embeddings)

    def inputs(self, images: Picture | Sequence[Picture], prompt: Prompt) -> Inputs:
        """One user turn, the images before the text: what `hf.generate` takes, on the model's device.

        A prompt of several turns says itself where its images are; it alone may have none. Raises `ImageError`
        for what is no usable image, or for none, and `PromptError` for an empty prompt, one that spells out the
        model's image token, or one that leaves no room in the context.
        """
        pictures = open_images(images)
        if not pictures and isinstance(prompt, str):
            raise ImageError(
                "No image was given; expected at least one: a path, a PIL image, an array or bytes."
            )
        if isinstance(prompt, str) and not prompt.strip():
            raise PromptError("The prompt is empty; ask a question about the image.")
        try:
            pixels = self.image_processor(images=pictures, return_tensors="pt") if pictures else {}
        except ValueError as error:  # an aspect ratio that the processor refuses
            sizes = ", ".join(f"{picture.width} x {picture.height}" for picture in pictures)
            raise ImageError(
                f"The model's image processor refuses an image ({sizes} pixels): {error}; crop it."
            ) from error
        merge = self.adapter.merge_size(self.hf)
        grids = pixels["image_grid_thw"].tolist() if pictures else []
        counts = [rows * cols // merge**2 for _, rows, cols in grids]
        input_ids = self._expand_image_tokens(self._render(prompt, len(pictures)), counts)
        if len(input_ids) >= self.context_length:
            raise ContextError(
                f"The prompt takes {len(input_ids)} tokens ({sum(counts)} of them for images), and the "
                f"model's context holds {self.context_length}, its answer included; shorten it or use "
                "smaller images."
            )
        ids = torch.tensor([input_ids])
        tensors = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self.adapter.image_token_id(self.hf)).int(),  # 1: image
            **{name: pixels[name] for name in ("pixel_values", "image_grid_thw") if pictures},
        }
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def image_grids(self, inputs: Mapping[str, Tensor]) -> list[ImageGrid]:
        """Where each image lies among the prompt's tokens, in order."""
        return adapters.image_grids(self.hf, inputs)

    def prompt_opens_thinking(self, input_ids: Int[Tensor, "batch token"]) -> bool:
        """Whether the chat template already wrote the opening marker, so that generation starts inside it."""
        tail = self.tokenizer.decode(input_ids[0, -16:].tolist(), skip_special_tokens=False)
        return tail.rstrip().endswith(self.adapter.thinking_markers[0])

    def _render(self, prompt: Prompt, num_images: int) -> list[int]:
        """Token ids of the turns with one image token for each image."""
        if isinstance(prompt, str):
            content = [{"type": "image"}] * num_images + [{"type": "text", "text": prompt}]
            prompt = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(
            list(prompt),
            chat_template=self.chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _expand_image_tokens(self, ids: list[int], counts: list[int]) -> list[int]:
        """Each image token repeated for the visual tokens of its image."""
        image_token = self.adapter.image_token_id(self.hf)
        if ids.count(image_token) != len(counts):
            token = self.tokenizer.convert_ids_to_tokens(image_token)
            raise PromptError(
                f"The rendered prompt holds {ids.count(image_token)} image tokens for {len(counts)} images; "
                f"leave {token!r} out of the prompt (where it is not in there, the model's chat template is "
                "without images)."
            )
        remaining = iter(counts)
        return [copy for i in ids for copy in [i] * (next(remaining) if i == image_token else 1)]


@contextmanager
def rope_deltas_kept(model: Model) -> Iterator[None]:
    """Puts back the `rope_deltas` that the model's own forward leaves behind, when the last of the blocks that overlap ends.

    They would shift another request's positions.
    """
    inner = model.hf.model
    with _keeping:
        users, before = _kept.get(inner, (0, inner.rope_deltas))
        _kept[inner] = users + 1, before
    try:
        yield
    finally:
        with _keeping:
            users, before = _kept.pop(inner)
            if users > 1:
                _kept[inner] = users - 1, before
            else:
                inner.rope_deltas = before


def check_finite(model: Model, what: str, *values: Tensor) -> None:
    """Raises `UnsupportedModelError` where numbers of the model are not finite: `what` they are."""
    if not all(bool(each.isfinite().all()) for each in values):
        precision = str(model.hf.dtype).removeprefix("torch.")
        raise UnsupportedModelError(
            f"The model's {what} are not finite numbers in {precision}, so nothing can be learned from them: load it in "
            "bfloat16 or float32, and if it is, check its weights."
        )
