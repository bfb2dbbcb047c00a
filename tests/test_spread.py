"""Several processes that make one run: shards of its examples, and what they write at the same moment."""

import dataclasses
import itertools
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import refuse, run, succeed
from conftest import build_tiny, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from test_collect import SETTINGS, everything, examples

from eyeline.errors import DataError
from eyeline.files import write_first
from eyeline.training import collect as collection
from eyeline.training.collect import collect
from eyeline.training.spread import Shard, Spread


@given(of=st.integers(1, 9), count=st.integers(0, 40))
def test_shards_share_out_all_examples_evenly_and_say_how_many_they_take(of, count):
    taken = [[place for place in range(count) if Shard(index, of).takes(place)] for index in range(of)]
    assert sorted(itertools.chain(*taken)) == list(range(count))
    assert [Shard(index, of).count(count) for index in range(of)] == [len(each) for each in taken]
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_shards_in_any_order_leave_the_folder_of_one_process(tmp_path):
    model = tiny_model("qwen3_vl")
    list(collect(model, examples(), tmp_path / "one", SETTINGS))
    for index in (1, 0):
        spread = Spread(tmp_path / "two", examples(), Shard(index, 2))
        made = list(collect(model, spread.ours(), tmp_path / "two", SETTINGS))
        assert made == [f"scene-{place}" for place in range(3) if place % 2 == index]
        assert spread.missing() == (2 if index else 0)
    assert everything(tmp_path / "two") == everything(tmp_path / "one")


def test_an_id_that_stands_in_two_shards_is_refused_by_either(tmp_path):
    data = [dataclasses.replace(example, id=name) for example, name in zip(examples(2), "aa", strict=True)]
    for index in range(2):
        with pytest.raises(DataError, match="stands twice"):
            list(Spread(tmp_path, data, Shard(index, 2)).ours())


def at_once(monkeypatch, *calls):
    """What calls return or raise that have all looked at a folder before any of them writes there."""
    barrier, write = threading.Barrier(len(calls)), collection.write_first

    def together(path, content):
        barrier.wait(10)
        write(path, content)

    monkeypatch.setattr(collection, "write_first", together)
    with ThreadPoolExecutor(len(calls)) as pool:
        waiting = [pool.submit(call) for call in calls]
        return [each.exception() or each.result() for each in waiting]


def test_two_processes_may_open_a_run_at_once_if_they_open_the_same(tmp_path, monkeypatch):
    """Of two that differ one is refused, and the run is the other's alone."""
    model, other = tiny_model("qwen3_vl"), build_tiny("qwen3_vl", seed=1)
    same = [lambda: list(collect(model, [], tmp_path / "same", SETTINGS)) for _ in range(2)]
    assert at_once(monkeypatch, *same) == [[], []]
    monkeypatch.undo()
    two = [
        lambda model=model: list(collect(model, [], tmp_path / "two", SETTINGS)) for model in (model, other)
    ]
    refused = [each for each in at_once(monkeypatch, *two) if each != []]
    assert len(refused) == 1
    assert "another model;" in str(refused[0])
    assert sorted(everything(tmp_path / "two")) == ["run.json"]


def test_the_first_whole_file_stays_and_what_killed_writers_left_goes(tmp_path, monkeypatch):
    (tmp_path / ".a.json.0a1b.part").write_bytes(b"half")
    (tmp_path / ".a.json.b.0a1b.part").write_bytes(b"another file's")
    (tmp_path / ".b.json.0a1b.part").write_bytes(b"another file's")
    write_first(tmp_path / "a.json", b"first")
    write_first(tmp_path / "a.json", b"second")
    kept = {".b.json.0a1b.part": b"another file's", "a.json": b"first"}
    assert everything(tmp_path) == kept
    link = os.link

    def late(part, path):  # another one is whole, and has cleared up, just before
        Path(path).write_bytes(b"theirs")
        Path(part).unlink()
        link(part, path)

    monkeypatch.setattr(os, "link", late)
    write_first(tmp_path / "c.json", b"ours")
    assert everything(tmp_path) == {**kept, "c.json": b"theirs"}


def test_a_file_system_without_links_gets_the_file_by_a_move(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_first(tmp_path / "a.json", b"whole")
    assert everything(tmp_path) == {"a.json": b"whole"}


def test_the_table_is_written_by_the_shard_that_finds_all_examples(here, data):
    words = (
        "evaluate",
        "--model",
        "model",
        "--data",
        data,
        "--methods",
        "random",
        "--out",
        "e",
        "--limit",
        5,
    )
    words = (*words, "--max-new-tokens", 12)
    assert succeed(*words, "--shard", "1/2").stderr.endswith("2 of 5 examples in e\n")
    assert not Path("e/table.csv").exists()
    assert succeed(*words, "--shard", "0/2").stderr.endswith("5 examples: e/table.csv, e/page.html\n")
    assert len(list(Path("e/examples").iterdir())) == 5


@pytest.mark.parametrize("shard", ["2/2", "-1/2", "0/0", "1", "a/b", "1/2/3"])
def test_a_shard_that_is_none_is_refused(here, data, shard):
    words = ("collect", "--model", "model", "--data", data, "--out", "c", "--shard", shard)
    assert "is not I/N with 0 <= I < N, like 0/4 to 3/4" in refuse(*words)


def test_ctrl_c_says_that_what_is_there_stays(here, data, monkeypatch):
    words = (
        "collect",
        "--model",
        "model",
        "--data",
        data,
        "--out",
        "c",
        "--limit",
        3,
        "--max-new-tokens",
        12,
    )
    real, asked = collection.collect_one, []

    def stopped_at_the_second(*each):
        asked.append(each)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(*each)

    monkeypatch.setattr(collection, "collect_one", stopped_at_the_second)
    result = run(*words)
    assert (result.exit_code, result.stdout) == (130, "")
    assert re.search(
        r"^Stopped: \d+ examples? kept in c. The same line goes on: ", result.stderr, re.MULTILINE
    )
    assert len(list(Path("c/examples").iterdir())) == 1
    assert succeed(*words).stderr.endswith("3 examples in c\n")
