"""What a model's weights alone say of what it writes, worked out at its first image and kept as long as they stay.

How a module's weights are read is projections.py's; what they are read for features.py's.
"""

import threading
import warnings
import weakref
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eyeline import projections
from eyeline.model import Model
from eyeline.projections import Linear, gain


@dataclass(frozen=True, eq=False)
class Output:
    """How the attention of a layer writes to the residual stream: gain * (W @ heads)."""

    linear: Linear
    gain: Float[Tensor, " width"] | None  # of the norm after attention, where there is one

    def weight(self) -> Float[Tensor, "width inner"]:
        """All of it as one matrix; float32."""
        weight = self.linear.weight().float()
        return weight if self.gain is None else weight * self.gain.to(weight.device)[:, None]

    def back(self, gradient: Float[Tensor, "token width"]) -> Float[Tensor, "token inner"]:
        """A gradient at what is written as one at what the heads put out; of the model's dtype."""
        return self.linear.back(gradient if self.gain is None else gradient * self.gain.to(gradient.device))


@dataclass(frozen=True, eq=False)
class Writing:
    """Of a model's weights; on its device."""

    outputs: tuple[Output, ...]  # of each layer
    head: Linear
    grams: tuple[
        Float[Tensor, "head dim dim"], ...
    ]  # W_O W_O' of each layer: norms of what heads write; float32
    mean_entry: Float[Tensor, " width"]  # of the unembedding, float32
    probes: tuple[Tensor, ...]  # by which changed weights are told


# Process-wide, because models are shared by threads
_known: "weakref.WeakKeyDictionary[nn.Module, Writing]" = weakref.WeakKeyDictionary()
_lock = threading.RLock()  # guards `_known`, and lets one thread work it out


def output_of(model: Model, layer: int) -> Output:
    norm = model.adapter.attention_norm(model.adapter.layers(model.hf)[layer])
    return Output(projections.output_of(model.hf, model.adapter, layer), None if norm is None else gain(norm))


def writing_of(model: Model, again: bool = False) -> Writing:
    """What is known of a model's weights; with `again`, once an image, worked out anew where they have changed.

    A LoRA may have been added, merged or taken out since.
    """
    with _lock:
        known = _known.get(model.hf)
        if known is not None and not (again and _changed(model, known)):
            return known
        found = _work_out(model)
        if model.device.type == "cuda":
            # whoever reads it next may do so on another stream, and what it replaces may still be read on one
            torch.cuda.synchronize(model.device)
        _known[model.hf] = found
        return found


def _modules(model: Model) -> tuple[tuple[Output, ...], Linear]:
    outputs = tuple(output_of(model, layer) for layer in range(len(model.adapter.layers(model.hf))))
    return outputs, projections.head_of(model.hf, model.adapter)


def _probes(outputs: tuple[Output, ...], head: Linear) -> tuple[Tensor, ...]:
    gains = [output.gain for output in outputs if output.gain is not None]
    return *(each.probe() for each in (head, *(output.linear for output in outputs))), *gains


def _changed(model: Model, known: Writing) -> bool:
    now = _probes(*_modules(model))
    return not all(
        one.shape == other.shape and one.device == other.device and torch.equal(one, other)
        for one, other in zip(now, known.probes, strict=True)
    )


def _work_out(model: Model) -> Writing:
    outputs, head = _modules(model)
    slow = next((each for each in outputs if not each.linear.is_plain and not each.linear.goes_back), None)
    if slow is not None:
        warnings.warn(
            f"{type(slow.linear.module).__name__} passes no gradient back; Eyeline multiplies it by all unit vectors for "
            "every span, which is slow. Another quantisation may be faster.",
            stacklevel=2,
        )
    grams = []
    for output, layer in zip(outputs, model.adapter.layers(model.hf), strict=True):
        dim = int(model.adapter.self_attention(layer).head_dim)  # pyright: ignore[reportArgumentType]
        written = output.weight().T.unflatten(0, (-1, dim))  # (head, dim, width)
        grams.append((written @ written.transpose(1, 2)).to(model.device))
    if head.is_plain:
        mean_entry = head.weight().mean(0, dtype=torch.float32)
    else:
        mean_entry = head.back(torch.full((1, head.outer), 1 / head.outer, device=head.device))[0].float()
    return Writing(outputs, head, tuple(grams), mean_entry.to(model.device), _probes(outputs, head))
