"""Large arrays of a fit: in memory while they are small, else mapped from a file, of which memory holds what is in use."""

import os
import tempfile
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from eyeline.errors import DataError

IN_MEMORY = 2**30  # bytes of one array


def joined(parts: Iterable[Tensor], rows: int) -> Tensor:
    """`torch.cat` of parts that have `rows` rows in all and are read one after the other; at least one part.

    Raises `DataError` where the disk has no room for what does not go into memory.
    """
    found, at = None, 0
    for part in parts:
        if found is None:
            found = room_for((rows, *part.shape[1:]), part.dtype)
        found[at : at + len(part)] = part
        at += len(part)
    assert found is not None, "one part at least"
    assert at == rows, "as many rows as were said"
    return found


def room_for(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An array on the CPU whose values are still to be written. Raises `DataError` where the disk has no room for it."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= IN_MEMORY:
        return torch.empty(shape, dtype=dtype)
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    try:
        with tempfile.TemporaryFile() as file:  # the mapping keeps it until the array is gone
            _reserve(file.fileno(), size)
            return torch.from_numpy(np.memmap(file, kind, "r+", shape=shape))
    except OSError as error:
        raise DataError(
            f"{tempfile.gettempdir()} has no room for {size / 2**30:.1f} GiB of features ({error.strerror}); expected a disk "
            "that holds them: name another folder in TMPDIR."
        ) from error


def _reserve(file: int, size: int) -> None:
    """So that a full disk is an error here, and not the end of the process once a page is written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
