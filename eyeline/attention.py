"""Decoding step -> attention to the image, without slowing the step down.

While a model decodes on its fast kernel, `AttentionCapture` keeps of each token only what has been worked out
anyway: its queries, the kernel's log-sum-exp, the last hidden state and the logits. Attention to the image columns,
exp(q . k * scaling - log-sum-exp), is worked out later, once a span, by `attention_to_image`. What is made of it is
left to features.py.
"""

import functools
import threading
import warnings
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from eyeline.errors import UnsupportedModelError
from eyeline.model import Model

NAME = "eyeline"  # in transformers' registries; they match "flash", "sdpa" and "flex_attention" as substrings
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, bool, float], tuple[Tensor, Tensor]]

# Process-wide, because transformers' registry is: which capture follows a module in a thread, and how many
# follow a model, with the implementation to put back when the last one leaves. Dictionaries are replaced,
# never changed.
_captures: "weakref.WeakKeyDictionary[nn.Module, dict[int, AttentionCapture]]" = weakref.WeakKeyDictionary()
_followed: "weakref.WeakKeyDictionary[nn.Module, tuple[int, str]]" = weakref.WeakKeyDictionary()
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Steps:
    """What was kept of the generated tokens [start, start + token): of each, the row that predicts it."""

    start: int
    queries: Float[Tensor, "layer head token dim"]  # after rotary embedding, in the model's dtype
    log_sum_exp: Float[Tensor, "layer head token"]  # of scaled scores over all keys, float32
    hidden: Float[Tensor, "token width"]  # residual stream before the final norm
    attention_rms: (
        Float[Tensor, "layer token"] | None
    )  # divisor of the norm after attention, where there is one
    logits: Float[Tensor, "token entry"] | None = None  # where the model has worked them out for each token
    outputs: Float[Tensor, "layer head token dim"] | None = (
        None  # what heads put out, where it was to be kept
    )

    def of_layers(self, layers: slice) -> "Steps":
        """Of some of the captured layers, without logits."""

        def of(values: Any) -> Any:
            return None if values is None else values[layers]

        return Steps(
            self.start, of(self.queries), of(self.log_sum_exp), self.hidden, of(self.attention_rms), None, of(self.outputs)
        )  # fmt: skip

    def __len__(self) -> int:
        return self.hidden.shape[0]


def attention_to_image(
    steps: Steps,
    image_keys: Float[Tensor, "layer kv_head patch dim"],
    scaling: float,
    visible: Bool[Tensor, "layer token patch"] | None = None,
) -> Float[Tensor, "layer head token patch"]:
    """Attention weights of each token to the image columns, normalised over all keys; float32.

    `visible` is `AttentionCapture.visible(steps)`: where it is False, outside a sliding window, the weight is
    0.
    """
    layers, heads, tokens, _ = steps.queries.shape
    kv_heads, patches = image_keys.shape[1:3]
    grouped = steps.queries.float().unflatten(1, (kv_heads, heads // kv_heads)).flatten(2, 3)
    scores = grouped @ image_keys.float().transpose(-1, -2)  # (layer, kv_head, group * token, patch)
    scores = scores.view(layers, heads, tokens, patches)
    weights = scores.mul_(scaling).sub_(steps.log_sum_exp[..., None]).exp_()
    return weights if visible is None else weights * visible[:, None]


class AttentionCapture:
    """Follows one generation, or one teacher-forced forward, of a model in the thread that opens it.

        with AttentionCapture(model, inputs) as capture:
            model.hf.generate(**inputs)
            steps = capture.take(0, 8)

    `inputs` is one prompt as `generate` takes it, left-padded or not; with `prompt_length`, its first tokens
    are the prompt and the rest is the trace. Token j is predicted by row prompt_length - 1 + j. Other threads
    may call `take`, `release` and the properties meanwhile; their own passes through the model are never
    recorded. Token ids stay the same, and the model is left as it was, however the block ends. Raises
    `UnsupportedModelError` for a batch and for a generation that does not go forward token by token (beams,
    assistants, a second call).

    `hidden` visual tokens are knocked out: no position after their image attends to them. `METHODS["attention"]`
    of ablation.py hides in the same way.

    `seen` is called with the capture once `vision_features` are there, before the text model reads them.

    Of the layers only `layers` are kept, by default all; the others run as sdpa does and leave nothing behind. What has a
    layer dimension, here and in `Steps`, has these layers alone, first to last. With `outputs` what heads put out is kept
    too, which doubles what a token takes.
    """

    def __init__(
        self,
        model: Model,
        inputs: Mapping[str, Tensor],
        *,
        prompt_length: int | None = None,
        hidden: Bool[Tensor, " patch"] | None = None,
        layers: Sequence[int] | None = None,
        outputs: bool = False,
        seen: Callable[["AttentionCapture"], None] = lambda _: None,
    ) -> None:
        if len(inputs["input_ids"]) != 1:
            raise UnsupportedModelError(
                f"Attention is captured for one prompt at a time, not a batch of {len(inputs['input_ids'])}; "
                "run the prompts one by one."
            )
        self.model = model
        self.prompt_length = inputs["input_ids"].shape[1] if prompt_length is None else prompt_length
        prompt = {**inputs, "input_ids": inputs["input_ids"][:, : self.prompt_length]}
        self.grids = model.image_grids(prompt)
        assert self.grids, "a prompt without images has nothing to attribute to"
        self.image_positions = torch.cat([grid.positions for grid in self.grids])  # of all images, in order
        self.vision_features: list[Tensor] | None = None  # of each image, (patch, dim), row by row
        self._seen = seen
        self._keeps_outputs = outputs
        self._last_image_position = int(self.image_positions[-1])
        blocks = model.adapter.layers(model.hf)
        self.layers = tuple(range(len(blocks)) if layers is None else sorted(set(layers)))
        assert self.layers, "without a layer there is nothing to attribute by"
        self._attentions: list[Any] = [model.adapter.self_attention(block) for block in blocks]
        self._kept = {self._attentions[layer] for layer in self.layers}
        self._norms: list[Any] = [
            norm for layer in self.layers if (norm := model.adapter.attention_norm(blocks[layer])) is not None
        ]
        windows = [getattr(module, "sliding_window", None) for module in self._attentions]
        self._windows = [windows[layer] for layer in self.layers]
        self._hidden = None if hidden is None else hidden.to(self.image_positions.device)
        if hidden is not None and any(window is not None for window in windows):
            raise UnsupportedModelError(
                "Attention knockout needs full attention, but this model has sliding windows: hide pixels instead."
            )
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._thread = 0
        self._passes: list[_Pass] = []  # complete ones, in order
        self._pass: _Pass | None = None  # the one under way
        self._read: _Pass | None = None  # the last one, until its logits are there
        self._position = 0  # where the next pass must begin
        self._bytes_per_token = 0  # but for its logits
        self._bytes_of_logits = 0
        self._pending = 0  # tokens kept
        self._changing = threading.Lock()  # guards _passes and _pending

    # --- opening and closing

    def __enter__(self) -> "AttentionCapture":
        self._thread = threading.get_ident()
        adapter, hf = self.model.adapter, self.model.hf
        with ExitStack() as undo:
            self._follow(undo)
            for handle in (
                adapter.text_model(hf).register_forward_pre_hook(self._begin, with_kwargs=True),
                adapter.final_norm(hf).register_forward_pre_hook(self._end),
                adapter.lm_head(hf).register_forward_hook(self._keep_logits),
                adapter.vision_tower(hf).register_forward_hook(self._keep_vision_features),
                *(norm.register_forward_pre_hook(self._keep_attention_norm) for norm in self._norms),
            ):
                undo.callback(handle.remove)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _follow(self, undo: ExitStack) -> None:
        """Puts our function in place of the model's text attention, once for all captures of the model."""
        _register()
        hf, thread = self.model.hf, self._thread
        with _lock:
            if thread in _captures.get(self._attentions[0], {}):
                raise UnsupportedModelError(
                    "This thread already captures this model's attention; close the first capture, or open "
                    "the second one in another thread."
                )
            users, before = _followed.get(hf, (0, hf.config.text_config._attn_implementation))
            if not users:
                # a plain string would change the vision tower too
                hf.set_attn_implementation({"text_config": NAME})
            _followed[hf] = users + 1, before
            undo.callback(_leave, hf)
            for module in self._attentions:
                _captures[module] = {**_captures.get(module, {}), thread: self}
            undo.callback(_forget, self._attentions, thread)

    # --- in the decoding thread, once a pass

    def _begin(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        batch, length, _ = kwargs["inputs_embeds"].shape
        cache = kwargs.get("cache", kwargs.get("past_key_values"))  # its name before transformers 5.24
        start = 0 if cache is None else cache.get_seq_length()
        if batch != 1 or start != self._position:
            raise UnsupportedModelError(
                f"The model was run on {batch} sequences from position {start}, where one sequence from "
                f"position {self._position} was expected; capture one generation at a time, without beams "
                "or an assistant."
            )
        self._position = start + length
        first = max(0, self.prompt_length - 1 - start)
        holds_images = start <= self._last_image_position < start + length
        self._pass = _Pass(
            start + first - (self.prompt_length - 1), first, max(0, length - first), holds_images
        )
        self._pass.seen = self._see(start, length)

    def _see(self, start: int, length: int) -> Bool[Tensor, "1 1 row column"] | None:
        """What each row of a pass may attend to; None where nothing is hidden."""
        if self._hidden is None:
            return None
        positions = self.image_positions
        ends = torch.cat([grid.positions[-1].expand(len(grid)) for grid in self.grids])
        rows = torch.arange(start, start + length, device=positions.device)[:, None]
        seen = torch.arange(start + length, device=positions.device) <= rows
        there = positions < start + length
        seen[:, positions[there]] &= ~(self._hidden & (rows > ends))[:, there]
        return seen[None, None]

    def _keep(self, query: Tensor, output: Tensor, log_sum_exp: Tensor, key: Tensor, value: Tensor) -> None:
        """Called by each layer that is kept, in turn."""
        now = self._pass
        assert now is not None
        if now.count:
            now.queries.append(now.rows(query, 2))
            now.log_sum_exp.append(now.rows(log_sum_exp, 2))
            if self._keeps_outputs:
                now.outputs.append(now.rows(output, 2))
        if now.holds_images:
            # Copies: a reference would pin the whole cache, which is replaced at each step. Columns that a
            # sliding cache has dropped are outside the window of every later row, so it does not matter what
            # stands there.
            columns = (self.image_positions.to(key.device) - (self._position - key.shape[2])).clamp(min=0)
            self._keys.append(key[0, :, columns].detach())
            self._values.append(value[0, :, columns].detach())

    def _keep_attention_norm(self, _: nn.Module, args: tuple) -> None:
        now = self._pass
        if now is not None and now.count and threading.get_ident() == self._thread:
            # one small kernel; keeping the output itself would double the bytes of a token
            now.attention_norms.append(
                torch.linalg.vector_norm(now.rows(args[0], 1), dim=-1, dtype=torch.float32)
            )

    def _end(self, _: nn.Module, args: tuple) -> None:
        now = self._pass
        if now is None or threading.get_ident() != self._thread:
            return
        self._pass = self._read = None
        if now.holds_images:
            self._image_keys, self._image_values = torch.stack(self._keys), torch.stack(self._values)
            self._keys, self._values = [], []
        if not now.count:
            return
        now.hidden = now.rows(args[0], 1)
        if not self._bytes_per_token:
            self._bytes_per_token = now.nbytes() // now.count
        with self._changing:
            self._passes.append(now)
            self._pending += now.count
        self._read = now

    def _keep_logits(self, _: nn.Module, args: tuple, output: Tensor) -> None:
        """Decoding has worked out the logits of each token, so nobody else needs to; a long pass has those of its end alone."""
        now = self._read
        if now is None or threading.get_ident() != self._thread or output.shape[:-1] != (1, now.count):
            return
        self._read = None
        now.logits = output.detach()
        self._bytes_of_logits = output.nbytes // now.count

    def _keep_vision_features(self, _: nn.Module, args: tuple, output: Any) -> None:
        if threading.get_ident() == self._thread:
            self.vision_features = self.model.adapter.visual_features(output, self.grids)
            self._seen(self)

    # --- for whoever attributes, in any thread

    @property
    def image_keys(self) -> Float[Tensor, "layer kv_head patch dim"]:
        """Keys of the visual tokens of all images, in order; there once the prompt has been read."""
        return self._image_keys

    @property
    def image_values(self) -> Float[Tensor, "layer kv_head patch dim"]:
        """Values beside `image_keys`."""
        return self._image_values

    @property
    def scaling(self) -> float:
        return float(self._attentions[0].scaling)

    @property
    def num_tokens(self) -> int:
        """Generated tokens whose rows have been recorded, released ones included."""
        return max(0, self._position - self.prompt_length + 1) if self._pass is None else self._pass.start

    @property
    def pending_bytes(self) -> int:
        """Memory of the tokens that are kept and not yet released; the image columns do not count."""
        return self._pending * (self._bytes_per_token + self._bytes_of_logits)

    def take(self, start: int, end: int) -> Steps:
        """What was kept of the generated tokens [start, end), which must be recorded and not released."""
        with self._changing:
            first = bisect_right(self._passes, start, key=lambda step: step.start) - 1
            last = bisect_left(self._passes, end, key=lambda step: step.start)
            passes = self._passes[max(first, 0) : last]
        if start >= end or not passes or passes[0].start > start or passes[-1].end < end:
            raise ValueError(f"tokens [{start}, {end}) are not all kept")
        cuts = [(step, max(start - step.start, 0), min(end, step.end) - step.start) for step in passes]

        def joined(name: str, layer: int) -> Tensor:  # (head, token, ...)
            return torch.cat([getattr(step, name)[layer][0, :, a:b] for step, a, b in cuts], dim=1)

        layers = range(len(self.layers))
        logits = [(step.logits, a, b) for step, a, b in cuts if step.logits is not None]
        rms = None
        if self._norms:
            norms = torch.stack(
                [torch.cat([step.attention_norms[layer][0, a:b] for step, a, b in cuts]) for layer in layers]
            )
            norm = self._norms[0]
            rms = (norms.square() / norm.weight.shape[0] + norm.variance_epsilon).sqrt()
        return Steps(
            start=start,
            queries=torch.stack([joined("queries", layer) for layer in layers]).detach(),
            log_sum_exp=torch.stack([joined("log_sum_exp", layer) for layer in layers]).detach(),
            hidden=torch.cat([step.hidden[0, a:b] for step, a, b in cuts]).detach(),
            attention_rms=None if rms is None else rms.detach(),
            logits=torch.cat([each[0, a:b] for each, a, b in logits]) if len(logits) == len(cuts) else None,
            outputs=torch.stack([joined("outputs", layer) for layer in layers]).detach()
            if self._keeps_outputs
            else None,
        )

    def release(self, end: int) -> None:
        """Lets go of the generated tokens before `end`; a pass of many tokens goes when all of them may."""
        with self._changing:
            done = bisect_right(self._passes, end, key=lambda step: step.end)
            self._pending -= sum(step.count for step in self._passes[:done])
            del self._passes[:done]

    def visible(self, steps: Steps) -> Bool[Tensor, "layer token patch"] | None:
        """Which image columns each token's row can attend to: none is hidden or outside a sliding window. None: all."""
        if self._hidden is not None:
            return (~self._hidden).expand(len(self._windows), len(steps), -1)
        if all(window is None for window in self._windows):
            return None
        rows = (
            torch.arange(len(steps), device=self.image_positions.device)
            + steps.start
            + self.prompt_length
            - 1
        )
        distance = rows[:, None] - self.image_positions
        return torch.stack([distance < (window or self._position + 1) for window in self._windows])

    def attention(self, steps: Steps) -> Float[Tensor, "layer head token patch"]:
        """`attention_to_image` of tokens taken from this capture."""
        return attention_to_image(steps, self.image_keys, self.scaling, self.visible(steps))

    def mark(self) -> "torch.cuda.Event | None":
        """On CUDA an event of the decoding stream, to wait on before reading what is kept so far."""
        if self.image_positions.device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record()
        return event


class _Pass:
    """One forward of the text model: `count` rows from `first` on, predicting tokens from `start` on."""

    __slots__ = (
        "attention_norms",
        "count",
        "first",
        "hidden",
        "holds_images",
        "log_sum_exp",
        "logits",
        "outputs",
        "queries",
        "seen",
        "start",
    )

    def __init__(self, start: int, first: int, count: int, holds_images: bool) -> None:
        self.start = start
        self.first = first
        self.count = count
        self.holds_images = holds_images
        self.queries: list[Tensor] = []  # of each layer, (1, head, token, dim)
        self.log_sum_exp: list[Tensor] = []  # of each layer, (1, head, token)
        self.outputs: list[Tensor] = []  # of each layer, (1, head, token, dim)
        self.attention_norms: list[Tensor] = []  # of each layer, (1, token)
        self.hidden: Any = None  # (1, token, width)
        self.logits: Tensor | None = None  # (1, token, entry)
        self.seen: Tensor | None = None  # (1, 1, row, column); None: all that came before

    @property
    def end(self) -> int:
        return self.start + self.count

    def rows(self, tensor: Tensor, dim: int) -> Tensor:
        """The wanted rows: in decoding the tensor itself, in prefill a copy that does not pin the prompt."""
        return tensor if not self.first else tensor.narrow(dim, self.first, self.count).clone()

    def nbytes(self) -> int:
        kept = (*self.queries, *self.log_sum_exp, *self.outputs, *self.attention_norms, self.hidden)
        return sum(tensor.nbytes for tensor in kept)


def _leave(hf: Any) -> None:
    with _lock:
        users, before = _followed[hf]
        if users > 1:
            _followed[hf] = users - 1, before
        else:
            del _followed[hf]
            hf.set_attn_implementation({"text_config": before})


def _forget(modules: list[Any], thread: int) -> None:
    with _lock:
        for module in modules:
            others = {other: capture for other, capture in _captures[module].items() if other != thread}
            if others:
                _captures[module] = others
            else:
                del _captures[module]


# --- the attention function


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

    capture = _captures.get(module, {}).get(threading.get_ident())
    now = None if capture is None else capture._pass
    if now is not None and now.seen is not None:
        assert attention_mask is None, "one prompt, not padded"
        attention_mask = now.seen
    wanted = now is not None and (now.count or now.holds_images)
    if capture is None or not wanted or module not in capture._kept:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    causal = query.shape[2] > 1 and attention_mask is None
    kernel = KERNELS.get(query.device.type, _any_kernel)
    output, log_sum_exp = kernel(query, key, value, attention_mask, causal, options["scaling"])
    capture._keep(query, output, log_sum_exp, key, value)
    return output.transpose(1, 2).contiguous(), None


def _cpu_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """The kernel that sdpa runs on CPU, called as transformers calls it: outputs are the same to the bit."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if mask is None:
        return flash(query, key, value, 0.0, causal, scale=scaling)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
    batch, heads, rows, dim = query.shape
    if rows == 1:  # transformers lays the heads of a group out as rows; other layouts round differently
        query = query.reshape(batch, key.shape[1], heads // key.shape[1], dim)
    output, log_sum_exp = flash(query, key, value, 0.0, False, attn_mask=mask, scale=scaling)
    return output.reshape(batch, heads, rows, dim), log_sum_exp.reshape(batch, heads, rows)


def _cuda_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """The kernels of sdpa on CUDA that return the log-sum-exp. Not run by us: there was no GPU."""
    if mask is not None or query.shape[-1] > 256:
        return _any_kernel(query, key, value, mask, causal, scaling)
    if query.dtype != torch.float32:
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scaling
        )
    else:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, None, True, 0.0, causal, scale=scaling
        )
    return output, log_sum_exp[..., : query.shape[2]]  # its rows are padded to a multiple of 32


def _any_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """sdpa, and the log-sum-exp beside it in float32: a second pass over the keys."""
    warnings.warn(
        f"The attention kernel on {query.device.type} returns no log-sum-exp here; Eyeline computes it "
        "again, which slows decoding down as the text grows.",
        stacklevel=2,
    )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    output = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scaling
    )
    scores = query.float() @ key.float().transpose(-1, -2) * scaling
    if causal:
        rows, columns = scores.shape[-2:]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return output, scores.logsumexp(-1)


KERNELS: dict[str, Kernel] = {"cpu": _cpu_kernel, "cuda": _cuda_kernel}  # by device type; others: _any_kernel
