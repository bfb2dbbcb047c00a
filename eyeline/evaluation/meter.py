"""What it costs to attribute: time, passes through the model and extra memory of whatever runs inside a block.

Passes are seen by hooks on the parts that the adapter names, so that any method is counted alike and nothing of the model
is changed.
"""

import ctypes
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.model import Model
from eyeline.teacher_forcing import cache_name


@dataclass(frozen=True, slots=True)
class Cost:
    """What a block took. None: not measured, or not to be measured here."""

    seconds: float  # wall
    forward_passes: float | None = None  # rows through the text model
    backward_passes: float | None = None  # rows that a gradient came back through
    vision_passes: int | None = None  # images through the vision tower
    extra_memory_bytes: int | None = None  # at its highest, over what was in use at the start


class Meter:
    """Measures a block:

        with Meter(model) as meter:
            effects = attribute(model)
        meter.cost.forward_passes

    A row of a batch is one pass, whatever its values. A row that runs only some positions, the rest being cached, counts
    as their share of the longest sequence seen in the block; so prompt and trace together are one pass, read at once or
    token by token. A backward pass is counted when a gradient reaches the text model's output, in the same unit.

    Passes of all threads count, in inference mode too. Memory: on CUDA what torch has allocated on the model's devices,
    which resets torch's own peak; on CPU the resident memory of the process on Linux, after the allocator has given back
    what it holds unused, to some 100 KiB; elsewhere None. So one block at a time. The hooks are gone, and `cost` is there,
    however the block ends.
    """

    cost: Cost

    def __init__(self, model: Model) -> None:
        self.model = model
        self._cache_name = cache_name(model)
        self._forward: list[int] = []  # positions of each pass, all rows; lists, because threads may append
        self._backward: list[int] = []
        self._longest: list[int] = []  # positions of a whole sequence
        self._images: list[int] = []

    def __enter__(self) -> "Meter":
        adapter, hf = self.model.adapter, self.model.hf
        with ExitStack() as undo:
            for handle in (
                adapter.text_model(hf).register_forward_hook(self._read),
                adapter.vision_tower(hf).register_forward_hook(self._see, with_kwargs=True),
            ):
                undo.callback(handle.remove)
            self._extra_memory = MEMORY.get(self.model.device.type, _unknown)(self.model)
            self._undo = undo.pop_all()
        self._begun = clock(self.model)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()
        extra = self._extra_memory()
        seconds = clock(self.model) - self._begun
        whole = max(self._longest, default=1)
        self.cost = Cost(
            seconds, sum(self._forward) / whole, sum(self._backward) / whole, sum(self._images), extra
        )

    def _read(self, _: nn.Module, args: tuple, output: Any) -> None:
        states: Tensor = output.last_hidden_state
        rows, positions = states.shape[:2]
        cache = output.get(self._cache_name)
        self._forward.append(rows * positions)
        self._longest.append(positions if cache is None else int(cache.get_seq_length()))
        if states.requires_grad:
            handle = states.register_hook(lambda _: self._backward.append(rows * positions))
            self._undo.callback(handle.remove)

    def _see(self, _: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        grids = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        self._images.append(len(grids))


def clock(model: Model) -> float:
    """Seconds, as `time.perf_counter` tells them once all that the model's CUDA devices were asked for is done."""
    for device in _cuda_devices(model):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _cuda_devices(model: Model) -> set[torch.device]:
    return {tensor.device for tensor in model.hf.parameters() if tensor.device.type == "cuda"}


def _unknown(model: Model) -> Callable[[], int | None]:
    return lambda: None


def _follow_resident(model: Model) -> Callable[[], int | None]:
    """Sets the kernel's record of the process's peak back to what is resident now."""
    if sys.platform == "linux":
        allocator = ctypes.CDLL(None)
        if hasattr(allocator, "malloc_trim"):  # glibc; what it holds unused would hide as much use
            allocator.malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # no Linux, or one that does not offer it
        return _unknown(model)
    before = _peak_resident()

    def extra() -> int | None:
        now = _peak_resident()
        return None if before is None or now is None else max(0, now - before)

    return extra


def _peak_resident() -> int | None:
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def _follow_allocated(model: Model) -> Callable[[], int | None]:
    """Not run by us: there was no GPU."""
    devices = _cuda_devices(model)
    for device in devices:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before = sum(torch.cuda.memory_allocated(device) for device in devices)

    def extra() -> int:
        for device in devices:
            torch.cuda.synchronize(device)
        return sum(torch.cuda.max_memory_allocated(device) for device in devices) - before

    return extra


MEMORY: dict[str, Callable[[Model], Callable[[], int | None]]] = {
    "cpu": _follow_resident,
    "cuda": _follow_allocated,
}
