"""Decoding step -> what attention to the image is worked out of, without slowing the step down.

While a model decodes on its fast kernel, `AttentionCapture` keeps of each token only what has been worked out
anyway: its queries, the kernel's log-sum-exp, the last hidden state and the largest logits. What follows from these is worked
out later, once a span (attention.py); how a capture gets to see what attention works out is following.py's.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from eyeline.attention import Likeliest, Steps, joined, likeliest
from eyeline.errors import UnsupportedModelError
from eyeline.following import following
from eyeline.model import Model


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
    too, in a model with sliding windows alone: elsewhere it follows from what the cache holds (features.py).
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
        self.model, self.device = model, model.device
        self.prompt_length = inputs["input_ids"].shape[1] if prompt_length is None else prompt_length
        prompt = {**inputs, "input_ids": inputs["input_ids"][:, : self.prompt_length]}
        self.grids = model.image_grids(prompt)
        assert self.grids, "a prompt without images has nothing to attribute to"
        self.image_positions = torch.cat([grid.positions for grid in self.grids])  # of all images, in order
        self._image_runs = _runs(self.image_positions.tolist())
        padded = inputs["attention_mask"][0].long().argmax() if "attention_mask" in inputs else 0
        self._first = int(padded)  # position, of a left-padded prompt
        self.vision_features: list[Tensor] | None = None  # of each image, (patch, dim), row by row
        self._when_seen = seen
        self._last_image_position = int(self.image_positions[-1])
        blocks = model.adapter.layers(model.hf)
        self.layers = tuple(range(len(blocks)) if layers is None else sorted(set(layers)))
        assert self.layers, "without a layer there is nothing to attribute by"
        self._attentions: list[Any] = [model.adapter.self_attention(block) for block in blocks]
        self._kept = frozenset(self._attentions[layer] for layer in self.layers)
        self._norms: list[Any] = [
            norm for layer in self.layers if (norm := model.adapter.attention_norm(blocks[layer])) is not None
        ]
        windows = model.adapter.sliding_windows(model.hf)
        self._windows = [windows[layer] for layer in self.layers]
        self._keeps_outputs = outputs and any(self._windows)
        self._hidden = None if hidden is None else hidden.to(self.image_positions.device)
        if hidden is not None and any(window is not None for window in windows):
            raise UnsupportedModelError(
                "Attention knockout needs full attention, but this model has sliding windows: hide pixels instead."
            )
        self._columns: dict[int, _Columns] = {}  # of each kept layer, those of the last pass
        self._left: dict[int, tuple[Tensor, Tensor]] = {}  # image columns of layers whose windows drop them
        self._stream: Any = None  # CUDA's, that the model runs on
        self._thread = 0
        self._passes: list[_Pass] = []  # complete ones, in order
        self._pass: _Pass | None = None  # the one under way
        self._read: _Pass | None = None  # the last one, until its logits have been there
        self.wanted: frozenset[Any] = frozenset()  # what a `Follower` wants of the pass under way
        self.seen: Tensor | None = None
        self._position = 0  # where the next pass must begin
        self._bytes_per_token = 0  # but for what is likely
        self._bytes_of_likeliest = 0
        self._pending = 0  # tokens kept
        self._changing = threading.Lock()  # guards _passes and _pending

    # --- opening and closing

    def __enter__(self) -> "AttentionCapture":
        self._thread = threading.get_ident()
        if self.image_positions.device.type == "cuda":
            self._stream = torch.cuda.current_stream(self.image_positions.device)
        adapter, hf = self.model.adapter, self.model.hf
        with ExitStack() as undo:
            undo.enter_context(following(hf, self._attentions, self))
            for handle in (
                adapter.text_model(hf).register_forward_pre_hook(self._begin, with_kwargs=True),
                adapter.final_norm(hf).register_forward_pre_hook(self._end),
                adapter.lm_head(hf).register_forward_hook(self._keep_likeliest),
                adapter.vision_tower(hf).register_forward_hook(self._keep_vision_features),
                *(norm.register_forward_pre_hook(self._keep_attention_norm) for norm in self._norms),
            ):
                undo.callback(handle.remove)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

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
        self._pass = now = _Pass(
            start + first - (self.prompt_length - 1), first, max(0, length - first), holds_images
        )
        self.wanted = self._kept if now.count or holds_images else frozenset()
        self.seen = self._see(start, length)

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

    def keep(self, query: Tensor, output: Tensor, log_sum_exp: Tensor, key: Tensor, value: Tensor) -> None:
        """Called by each layer that is kept, in turn (`following.Follower`)."""
        now = self._pass
        assert now is not None
        if now.count:
            now.queries.append(now.rows(query, 2))
            now.log_sum_exp.append(now.rows(log_sum_exp, 2))
            if self._keeps_outputs:
                now.outputs.append(now.rows(output, 2))
        # references: what a cache holds is never changed, the next pass makes other tensors
        layer, now.layer = now.layer, now.layer + 1
        self._columns[layer] = columns = _Columns(key, value, self._position)
        if now.holds_images and self._windows[layer] is not None:
            # Columns that the cache has dropped are outside the window of every later row: it does not matter what stands there
            at = (self.image_positions.to(key.device) - columns.first).clamp(min=0)
            self._left[layer] = key[0, :, at], value[0, :, at]

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
        self._pass = self._read = self.seen = None
        self.wanted = frozenset()
        if not now.count:
            return
        now.hidden = now.rows(args[0], 1)
        if not self._bytes_per_token:
            self._bytes_per_token = now.nbytes() // now.count
        with self._changing:
            self._passes.append(now)
            self._pending += now.count
        self._read = now

    def _keep_likeliest(self, _: nn.Module, args: tuple, output: Tensor) -> None:
        """Decoding works out the logits of each token, so nobody else needs to; a long pass has those of its end alone."""
        now = self._read
        if now is None or threading.get_ident() != self._thread or output.shape[:-1] != (1, now.count):
            return
        self._read = None
        now.likeliest = likeliest(output.detach()[0])
        self._bytes_of_likeliest = now.likeliest.nbytes // now.count

    def _keep_vision_features(self, _: nn.Module, args: tuple, output: Any) -> None:
        if threading.get_ident() == self._thread:
            features = self.model.adapter.visual_features(output, self.grids)
            self.vision_features = [each.to(self.device) for each in features]
            self._when_seen(self)

    # --- for whoever attributes, in any thread

    def image_columns(
        self, layers: slice
    ) -> tuple[Float[Tensor, "layer kv_head patch dim"], Float[Tensor, "layer kv_head patch dim"]]:
        """Keys and values of the visual tokens of all images, in order, in some captured layers, once the prompt has been read.

        They lie in the model's cache, and nowhere else: of one image in one layer these are views.
        """
        found = [
            self._left.get(layer) or self._of_cache(layer).between(self._image_runs)
            for layer in range(len(self.layers))[layers]
        ]
        keys, values = zip(*found, strict=True)
        return self._stack(keys).detach(), self._stack(values).detach()

    def _of_cache(self, layer: int) -> "_Columns":
        """What the model's cache holds; on CUDA the caller's stream waits for the model's, and the memory for the caller."""
        columns = self._columns[layer]
        if (mark := self.mark()) is not None:
            mark.wait()  # the last pass may have come after the job that is being done
            for each in (columns.keys, columns.values):
                each.record_stream(torch.cuda.current_stream(each.device))
        return columns

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
        return self._pending * (self._bytes_per_token + self._bytes_of_likeliest)

    def take(self, start: int, end: int) -> Steps:
        """What was kept of the generated tokens [start, end), which must be recorded and not released."""
        with self._changing:
            first = bisect_right(self._passes, start, key=lambda step: step.start) - 1
            last = bisect_left(self._passes, end, key=lambda step: step.start)
            passes = self._passes[max(first, 0) : last]
        if start >= end or not passes or passes[0].start > start or passes[-1].end < end:
            raise ValueError(f"tokens [{start}, {end}) are not all kept")
        cuts = [(step, max(start - step.start, 0), min(end, step.end) - step.start) for step in passes]

        def rows(name: str, layer: int) -> Tensor:  # (head, token, ...)
            return torch.cat([getattr(step, name)[layer][0, :, a:b] for step, a, b in cuts], dim=1)

        layers = range(len(self.layers))
        likely = [step.likeliest.of(a, b) for step, a, b in cuts if step.likeliest is not None]
        rms = None
        if self._norms:
            norms = self._stack(
                [torch.cat([step.attention_norms[layer][0, a:b] for step, a, b in cuts]) for layer in layers]
            )
            norm = self._norms[0]
            width = self.model.adapter.text_config(self.model.hf).hidden_size
            rms = (norms.square() / width + norm.variance_epsilon).sqrt()
        return Steps(
            start=start,
            queries=self._stack([rows("queries", layer) for layer in layers]).detach(),
            log_sum_exp=self._stack([rows("log_sum_exp", layer) for layer in layers]).detach(),
            hidden=torch.cat([step.hidden[0, a:b] for step, a, b in cuts]).to(self.device).detach(),
            attention_rms=None if rms is None else rms.detach(),
            likeliest=joined(likely).to(self.device) if len(likely) == len(cuts) else None,
            outputs=self._stack([rows("outputs", layer) for layer in layers]).detach()
            if self._keeps_outputs
            else None,
        )

    def columns(
        self, layers: slice, start: int, end: int
    ) -> tuple[Float[Tensor, "layer kv_head column dim"], Float[Tensor, "layer kv_head column dim"]]:
        """Keys and values at the positions [start, end), which the model must have read, in some captured layers.

        Raises `UnsupportedModelError` where a sliding window has dropped some.
        """
        found = []
        for layer in range(len(self.layers))[layers]:
            columns = self._of_cache(layer)
            if columns.first > start:
                raise UnsupportedModelError("The keys of earlier text have left the model's sliding window.")
            found.append(columns.between([(start, end)]))
        keys, values = zip(*found, strict=True)
        return self._stack(keys).detach(), self._stack(values).detach()

    def text_runs(self, steps: Steps) -> list[tuple[int, int]]:
        """Positions [start, end) of all but visual tokens, from the first that is no padding to the last row's own."""
        starts = [self._first, *(end for _, end in self._image_runs)]
        ends = [*(start for start, _ in self._image_runs), self.row(steps.start + len(steps) - 1) + 1]
        return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]

    def row(self, token: int) -> int:
        """Position of the row that predicts a generated token."""
        return self.prompt_length - 1 + token

    def _stack(self, layers: Sequence[Tensor]) -> Tensor:
        """What was kept of each layer, where that layer lies, brought together on the model's device."""
        if len(layers) == 1:
            return layers[0].to(self.device)[None]  # of a large model, one by one, nothing is copied
        return torch.stack([layer.to(self.device) for layer in layers])

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
        rows = torch.arange(len(steps), device=self.image_positions.device) + self.row(steps.start)
        distance = rows[:, None] - self.image_positions
        return torch.stack([distance < (window or self._position + 1) for window in self._windows])

    def mark(self) -> "torch.cuda.Event | None":
        """On CUDA an event of the model's stream, to wait on before reading what is kept so far; from any thread."""
        if self.image_positions.device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record(self._stream)
        return event


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Rising positions as runs [start, end) of those that follow each other."""
    runs: list[tuple[int, int]] = []
    for at in positions:
        if runs and runs[-1][1] == at:
            runs[-1] = runs[-1][0], at + 1
        else:
            runs.append((at, at + 1))
    return runs


class _Columns(NamedTuple):
    """What a layer's cache holds after a pass."""

    keys: Tensor  # (1, kv_head, column, dim)
    values: Tensor
    end: int  # position after the last column

    @property
    def first(self) -> int:
        """Position of the first column that is still there."""
        return self.end - self.keys.shape[2]

    def between(self, runs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """(kv_head, column, dim) at the positions of some runs [start, end): of one run views."""
        found = [
            [each[0, :, start - self.first : end - self.first] for start, end in runs]
            for each in (self.keys, self.values)
        ]
        keys, values = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1) for parts in found)
        return keys, values


class _Pass:
    """One forward of the text model: `count` rows from `first` on, predicting tokens from `start` on."""

    __slots__ = (
        "attention_norms",
        "count",
        "first",
        "hidden",
        "holds_images",
        "layer",
        "likeliest",
        "log_sum_exp",
        "outputs",
        "queries",
        "start",
    )

    def __init__(self, start: int, first: int, count: int, holds_images: bool) -> None:
        self.start = start
        self.first = first
        self.count = count
        self.holds_images = holds_images
        self.layer = 0  # how many kept layers have run
        self.queries: list[Tensor] = []  # of each layer, (1, head, token, dim)
        self.log_sum_exp: list[Tensor] = []  # of each layer, (1, head, token)
        self.outputs: list[Tensor] = []  # of each layer, (1, head, token, dim)
        self.attention_norms: list[Tensor] = []  # of each layer, (1, token)
        self.hidden: Any = None  # (1, token, width)
        self.likeliest: Likeliest | None = None

    @property
    def end(self) -> int:
        return self.start + self.count

    def rows(self, tensor: Tensor, dim: int) -> Tensor:
        """The wanted rows: in decoding the tensor itself, in prefill a copy that does not pin the prompt."""
        return tensor if not self.first else tensor.narrow(dim, self.first, self.count).clone()

    def nbytes(self) -> int:
        kept = (*self.queries, *self.log_sum_exp, *self.outputs, *self.attention_norms, self.hidden)
        return sum(tensor.nbytes for tensor in kept)


class NoCapture:
    """Stands in for a capture where there is no image to attribute to."""

    pending_bytes = 0

    def mark(self) -> None:
        return None

    def release(self, end: int) -> None:
        return None
