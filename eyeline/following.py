"""Who follows a model's attention: a function of ours stands in its place while anybody does, and serves each in its thread.

The model's outputs stay the same to the bit where the kernels of kernels.py are its own.
"""

import functools
import threading
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from eyeline.errors import UnsupportedModelError
from eyeline.kernels import KERNELS, any_kernel

NAME = "eyeline"  # in transformers' registries; they match "flash", "sdpa" and "flex_attention" as substrings


@runtime_checkable
class Follower(Protocol):
    """Who is shown what a model's attention works out."""

    @property
    def wanted(self) -> Collection[nn.Module]:
        """The attention modules that it is to be shown now."""
        ...

    @property
    def seen(self) -> Tensor | None:
        """(1, 1, row, column): what each row may attend to now; None: all that came before."""
        ...

    def keep(self, query: Tensor, output: Tensor, log_sum_exp: Tensor, key: Tensor, value: Tensor) -> None:
        """Told by each wanted module, in turn.

        query (1, head, row, dim) after rotary embedding; log_sum_exp (1, head, row) of scaled scores, float32; key and
        value (1, kv_head, column, dim), the whole cache.
        """


# Process-wide, because transformers' registry is: who follows a module in which thread, and how many follow a model,
# with the implementation to put back when the last one leaves. Dictionaries are replaced, never changed.
_followers: "weakref.WeakKeyDictionary[nn.Module, dict[int, Follower]]" = weakref.WeakKeyDictionary()
_followed: "weakref.WeakKeyDictionary[nn.Module, tuple[int, str]]" = weakref.WeakKeyDictionary()
_lock = threading.RLock()


@contextmanager
def following(hf: Any, modules: Sequence[Any], follower: Follower) -> Iterator[None]:
    """Shows a follower the text attention `modules` of a transformers model, in the thread that enters the block.

    Raises `UnsupportedModelError` where this thread follows the model already.
    """
    _register()
    thread = threading.get_ident()
    with _lock:
        if thread in _followers.get(modules[0], {}):
            raise UnsupportedModelError(
                "This thread already captures this model's attention; close the first capture, or open "
                "the second one in another thread."
            )
        users, before = _followed.get(hf, (0, hf.config.text_config._attn_implementation))
        if not users:
            # a plain string would change the vision tower too
            hf.set_attn_implementation({"text_config": NAME})
        _followed[hf] = users + 1, before
        for module in modules:
            _followers[module] = {**_followers.get(module, {}), thread: follower}
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                _forget(module, thread)
            _leave(hf)


def _forget(module: nn.Module, thread: int) -> None:
    others = {other: follower for other, follower in _followers[module].items() if other != thread}
    if others:
        _followers[module] = others
    else:
        del _followers[module]


def _leave(hf: Any) -> None:
    users, before = _followed[hf]
    if users > 1:
        _followed[hf] = users - 1, before
    else:
        del _followed[hf]
        hf.set_attn_implementation({"text_config": before})


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # without it the mask would silently be None


def _attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each text layer.

    query (1, head, row, dim); key and value (1, kv_head, column, dim), the whole cache.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    follower = _followers.get(module, {}).get(threading.get_ident())
    if follower is not None and follower.seen is not None:
        assert attention_mask is None, "one prompt, not padded"
        attention_mask = follower.seen.to(query.device)
    if follower is None or module not in follower.wanted:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    causal = query.shape[2] > 1 and attention_mask is None
    kernel = KERNELS.get(query.device.type, any_kernel)
    output, log_sum_exp = kernel(query, key, value, attention_mask, causal, options["scaling"])
    follower.keep(query, output, log_sum_exp, key, value)
    return output.transpose(1, 2).contiguous(), None
