"""Arrays of a fit that memory is not to hold."""

import errno
import os

import pytest
import torch

from eyeline.errors import DataError
from eyeline.training import large
from eyeline.training.large import joined, room_for


@pytest.fixture
def on_disk(monkeypatch):
    monkeypatch.setattr(large, "IN_MEMORY", 16)


def parts(dtype=torch.float16):
    return [
        torch.randn(rows, 3, 2, generator=torch.Generator().manual_seed(rows)).to(dtype) for rows in (4, 1, 7)
    ]


def test_parts_are_joined_alike_in_memory_and_on_disk(on_disk, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reserved = []
    kept = large._reserve
    monkeypatch.setattr(large, "_reserve", lambda file, size: reserved.append(size) or kept(file, size))
    found = joined(iter(parts()), 12)
    assert torch.equal(found, torch.cat(parts()))
    assert reserved == [12 * 3 * 2 * 2]
    assert not list(tmp_path.iterdir())  # it has no name, and goes with the array
    found[3] += 1
    assert torch.equal(found[[0, 11]], torch.cat(parts())[[0, 11]])


def test_small_ones_stay_in_memory(monkeypatch):
    monkeypatch.setattr(large, "_reserve", lambda *_: pytest.fail("a file was made"))
    assert room_for((3, 4), torch.float32).shape == (3, 4)


def test_a_full_disk_is_said_in_a_sentence(on_disk, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"no room for 7\.5 GiB of features .*TMPDIR"):
        room_for((2**30 - 2**26, 2), torch.float32)
