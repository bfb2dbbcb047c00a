"""What a module of a model computes, whatever holds its weights and wherever they lie.

A weight may be packed (bitsandbytes, AWQ, GPTQ, torchao), have a LoRA beside it, or be kept on the CPU or the disk until it is
needed (accelerate). So weights are read here alone: a plain one as it is, any other by what its module does, which is
linear. What a model's weights together say of what it writes is writing.py's.
"""

import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, one_hot

from eyeline.adapters import Adapter
from eyeline.errors import UnsupportedModelError

PLAIN = (torch.float32, torch.bfloat16, torch.float16)
ROUNDING = 0.1  # relative error up to which two ways to the same numbers agree: quantised activations lose a hundredth
PROBES = 4

# Of modules whose weights come and go: who runs one has all of its model's to himself. Their hooks know no threads.
_locks: "weakref.WeakKeyDictionary[nn.Module, threading.RLock]" = weakref.WeakKeyDictionary()


def is_packed(weight: Tensor) -> bool:
    """Whether a weight is quantised: other than numbers that can be multiplied by, or a tensor of a class of its own."""
    return weight.dtype not in PLAIN or hasattr(weight, "__tensor_flatten__")


def is_offloaded(module: nn.Module) -> bool:
    """Whether accelerate fetches a module's own weights for each forward."""
    return bool(getattr(getattr(module, "_hf_hook", None), "offload", False))


def device_of(module: nn.Module) -> torch.device:
    """Where a module runs."""
    place = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if place is not None:
        return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def at_hand(module: nn.Module) -> Iterator[None]:
    """Inside the block a module's own weights lie where it runs."""
    if not is_offloaded(module):
        yield
        return
    hook: Any = module._hf_hook
    lock: AbstractContextManager[Any] = _locks.get(module, nullcontext())
    with lock:
        hook.pre_forward(module)
        try:
            yield
        finally:
            hook.post_forward(module, None)


def one_at_a_time(hf: nn.Module) -> None:
    """Lets several threads run a model whose weights come and go: one of its modules that fetch weights runs at a time."""
    fetching = [module for module in hf.modules() if is_offloaded(module) and module not in _locks]
    lock = threading.RLock()
    for module in fetching:
        _locks[module] = lock
        module.forward = _locked(module.forward, lock)


def _locked(forward: Any, lock: "threading.RLock") -> Any:
    def locked(*args: Any, **options: Any) -> Any:
        with lock:
            return forward(*args, **options)

    return locked


def gain(norm: Any) -> Float[Tensor, " width"]:
    """What an RMS norm multiplies by; float32, where the norm runs."""
    with at_hand(norm):
        return norm.weight.detach().float()


@dataclass(frozen=True, eq=False)
class Linear:
    """A module that computes W x + b: W as it is multiplied by now, LoRA and all."""

    module: nn.Module
    inner: int  # length of x
    dtype: torch.dtype  # that x has in the model

    @property
    def device(self) -> torch.device:
        return device_of(self.module)

    @property
    def is_plain(self) -> bool:
        """Whether its weight can be read as it is."""
        weight = getattr(self.module, "weight", None)
        if not isinstance(self.module, nn.Linear) or type(self.module).forward is not nn.Linear.forward:
            return False
        return isinstance(weight, Tensor) and not is_packed(weight)

    def weight(self) -> Float[Tensor, "outer inner"]:
        """W, where the module runs; of one that is not plain read off what it does to all unit vectors."""
        module: Any = self.module
        if self.is_plain:
            with at_hand(module):
                return module.weight.detach()
        return self.times(torch.eye(self.inner, device=self.device, dtype=self.dtype)).T

    def times(self, vectors: Float[Tensor, "row inner"]) -> Float[Tensor, "row outer"]:
        """W x of each row."""
        with torch.no_grad():
            vectors = vectors.to(self.device, self.dtype)
            if self.is_plain:
                return vectors @ self.weight().to(self.dtype).T
            found = self.module(torch.cat([vectors, torch.zeros_like(vectors[:1])]))
            return found[:-1] - found[-1]

    def back(self, gradient: Float[Tensor, "row outer"]) -> Float[Tensor, "row inner"]:
        """`gradient @ W`, where the gradient lies, in the model's dtype."""
        there = gradient.to(self.device, self.dtype)
        if not self.is_plain and self.goes_back:
            found = self._back_through(there)
        else:
            weight = self.weight()
            found = there.to(weight.dtype) @ weight
        return found.to(gradient.device, self.dtype)

    def rows(self, numbers: Int[Tensor, " row"]) -> Float[Tensor, "row inner"]:
        """Some rows of W, where the numbers lie; float32."""
        module: Any = self.module
        if self.is_plain:
            with at_hand(module):
                return module.weight.detach()[numbers.to(self.device)].to(numbers.device).float()
        return self.back(one_hot(numbers, self.outer).to(self.dtype)).float()

    def mix(
        self, shares: Float[Tensor, "row some"], numbers: Int[Tensor, "row some"]
    ) -> Float[Tensor, "row inner"]:
        """Sums of some rows of W by shares, where these lie; float32."""
        module: Any = self.module
        if self.is_plain:
            with at_hand(module):
                weight = module.weight.detach()
                there = {"per_sample_weights": shares.to(weight), "mode": "sum"}
                return embedding_bag(numbers.to(self.device), weight, **there).to(shares.device).float()
        spread = shares.new_zeros(len(shares), self.outer).scatter(1, numbers, shares)
        return self.back(spread).float()

    @cached_property
    def outer(self) -> int:
        """Length of W x."""
        return self.probe().shape[-1]

    def probe(self) -> Float[Tensor, "1 outer"]:
        """What it makes of one vector, always the same one: it tells when weights have changed."""
        rng = torch.Generator().manual_seed(0)
        return self.times(torch.randn(1, self.inner, generator=rng))

    @cached_property
    def goes_back(self) -> bool:
        """Whether it has a backward pass, and a right one, as libraries do not all have: g . (W x) = (g W) . x."""
        rng = torch.Generator().manual_seed(0)
        vectors = torch.randn(PROBES, self.inner, generator=rng).to(self.device, self.dtype)
        written = self.times(vectors).float()
        gradients = torch.randn(PROBES, written.shape[1], generator=rng).to(self.device, self.dtype)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is only tried
                found = self._back_through(gradients).float()
        except Exception:  # libraries raise nearly every kind
            return False
        expected = gradients.float() @ written.T
        return bool((found @ vectors.float().T - expected).norm() < ROUNDING * expected.norm())

    def _back_through(self, gradient: Float[Tensor, "row outer"]) -> Float[Tensor, "row inner"]:
        """The vector-Jacobian product of the module's own backward pass."""
        with torch.inference_mode(False), torch.enable_grad():
            vectors = gradient.new_zeros(len(gradient), self.inner).requires_grad_()
            written = self.module(vectors)
            return torch.autograd.grad(written, vectors, gradient.to(written.dtype, copy=True))[0]

    def check(self, name: str) -> None:
        """Raises `UnsupportedModelError` where a module of that name is not linear, or has no weights."""
        if self.is_plain:
            lacks = self.module.weight.is_meta and not is_offloaded(self.module)  # pyright: ignore
            problem = "has no weights (they lie on the device 'meta')" if lacks else None
        else:
            problem = self._nonlinear()
        if problem:
            raise UnsupportedModelError(
                f"The model's {name}, a {type(self.module).__name__}, {problem}; expected a linear layer, whole, quantised "
                "or with a LoRA: load the model without what has replaced it."
            )

    def _nonlinear(self) -> str | None:
        rng = torch.Generator().manual_seed(0)
        one, other = torch.randn(2, PROBES, self.inner, generator=rng)
        try:
            both, apart = self.times(one + other).float(), self.times(one).float() + self.times(other).float()
        except Exception as error:  # libraries raise nearly every kind
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            return f"fails on {self.inner} numbers in {str(self.dtype).removeprefix('torch.')} ({first})"
        if not both.isfinite().all():
            return "makes numbers that are not finite"
        return None if (both - apart).norm() < ROUNDING * both.norm() else "does not add up what it is given"


def head_of(hf: Any, adapter: Adapter) -> Linear:
    """The unembedding."""
    return Linear(adapter.lm_head(hf), int(adapter.text_config(hf).hidden_size), hf.dtype)


def output_of(hf: Any, adapter: Adapter, layer: int) -> Linear:
    """From what the heads of a layer put out to what its attention writes, before the norm after it where there is one."""
    attention: Any = adapter.self_attention(adapter.layers(hf)[layer])
    heads = int(adapter.text_config(hf).num_attention_heads)
    return Linear(attention.o_proj, heads * int(attention.head_dim), hf.dtype)


def check_model(hf: Any, adapter: Adapter) -> None:
    """Raises `UnsupportedModelError` for a model with a part that attribution could not read, and says which.

    Plain weights are not touched; of what replaces them a few vectors are tried.
    """
    with torch.inference_mode():
        head_of(hf, adapter).check("head")
        norms = {"final norm": adapter.final_norm(hf)}
        for number, layer in enumerate(adapter.layers(hf)):
            output_of(hf, adapter, number).check(f"output projection of layer {number}")
            if (norm := adapter.attention_norm(layer)) is not None:
                norms[f"norm after attention of layer {number}"] = norm
        for name, norm in norms.items():
            if not isinstance(getattr(norm, "weight", None), Tensor) or not hasattr(norm, "variance_epsilon"):
                raise UnsupportedModelError(
                    f"The model's {name}, a {type(norm).__name__}, is not the RMS norm of its family; expected one with "
                    "`weight` and `variance_epsilon`: load the model without what has replaced it."
                )
