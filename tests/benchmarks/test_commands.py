"""How commands write their tables: the same columns and digits as ever, and a sentence for what a user can put right."""

import itertools
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from conftest import picture, tiny_model

from benchmarks import earlier_text, familiar, follow_pace, latency, load, reach
from eyeline.examples import Example, write_examples

NEEDS = {
    latency: ("--data", "nowhere"), load: (), reach: (), follow_pace: (), earlier_text: ("--data", "nowhere"),
    familiar: ("--weights", "nowhere"),
}  # fmt: skip
commands = pytest.mark.parametrize("module", list(NEEDS), ids=lambda module: module.__name__)


@commands
def test_a_name_that_is_no_csv_is_refused_before_the_work(module, tmp_path):
    result = CliRunner().invoke(module.main, [*NEEDS[module], "--out", str(tmp_path / "table.txt")])
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "is no name of a CSV" in result.output


@commands
def test_a_folder_that_cannot_be_made_is_told_before_the_work(module, tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(module.main, [*NEEDS[module], "--out", str(tmp_path / "file" / "table.csv")])
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "cannot be read or written" in result.output


def test_data_that_are_not_there_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "load", lambda name: None)
    asked = ["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "l.csv")]
    result = CliRunner().invoke(latency.main, asked)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "nowhere" in result.output


def test_latency_is_written_as_ever(tmp_path, monkeypatch):
    write_examples([Example("one", picture(), "How many?", "3", "math", "bars")], tmp_path / "data")
    seconds = itertools.count(2)
    for name, found in {
        "load": lambda name: tiny_model("qwen3_vl"),
        "first_text_seconds": lambda *_: 0.08215,
        "time_stream": lambda *_: (float(next(seconds)), 3.0),
        "time_generate": lambda *_, streamed: (2.0, 2.0) if streamed else (1.0, 1.0),
        "timely": lambda *_: iter([True, True, False]),
        "attribution_seconds": lambda model, example, context, repeats: context / 1e6,
    }.items():
        monkeypatch.setattr(latency, name, found)
    monkeypatch.setattr(latency.torch, "get_num_threads", lambda: 2)
    asked = ["--data", str(tmp_path / "data"), "--rounds", "3", "--out", str(tmp_path / "new" / "l.csv")]
    result = CliRunner().invoke(latency.main, asked, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "new" / "l.csv").read_text().splitlines() == [
        "measure,value",
        "threads,2",
        "first_text_s_after_loading,0.0822",
        "first_text_s_later_median,0.0822",
        "over_generate_with_streamer_median,2.0000",
        "over_generate_with_streamer_quartiles,1.5000 2.5000",
        "over_bare_generate_median,4.0000",
        "over_bare_generate_quartiles,3.0000 5.0000",
        "cpu_over_generate_with_streamer_median,1.5000",
        "cpu_over_generate_with_streamer_quartiles,1.5000 1.5000",
        "tokens_per_s_with_attribution_median,80.0",
        "attributions_before_the_next_span_ends,0.6667",
        "spans,3",
        "attribution_ms_per_token_at_250,0.2500",
        "attribution_ms_per_token_at_4000,4.0000",
        "ratio_4000_over_250,16.0000",
    ]
    assert "spans: 3\n" in result.output


def test_load_is_written_as_ever_and_fails_where_an_answer_was_lost(tmp_path, monkeypatch):
    @contextmanager
    def serving(model):
        yield SimpleNamespace()

    monkeypatch.setattr(load, "serving", serving)
    monkeypatch.setattr(load, "cost", lambda *_: {"time_per_token_ratio": 1.06137})
    found = {"whole": 355, "left": 145, "lost": 1, "different": 0, "memory_before_mib": 849.62891}
    monkeypatch.setattr(load, "under_load", lambda *_: found)
    result = CliRunner().invoke(load.main, ["--out", str(tmp_path / "l.csv")])
    assert result.exit_code == 1
    assert (tmp_path / "l.csv").read_text().splitlines() == [
        "measure,value", "time_per_token_ratio,1.0614", "whole,355", "left,145", "lost,1", "different,0",
        "memory_before_mib,849.6289",
    ]  # fmt: skip


def test_reach_is_written_as_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(reach.shutil, "which", lambda name: name)
    monkeypatch.setattr(reach, "measure", lambda *_: {"text": [0.001, 0.002, 0.004], "span": [0.003, 0.005]})
    result = CliRunner().invoke(reach.main, ["--out", str(tmp_path / "r.csv")], catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "r.csv").read_text().splitlines() == [
        "event,low_quartile_s,median_s,high_quartile_s,events",
        "text,0.0010,0.0020,0.0040,3",
        "span,0.0025,0.0040,0.0055,2",
    ]
    assert result.output.startswith("event,low_quartile_s")


def test_earlier_text_is_timed_in_the_decoding_thread_with_and_without(monkeypatch):
    model = tiny_model("qwen3_vl")
    monkeypatch.setattr(earlier_text, "TOKENS", 12)
    rows = earlier_text.measure(model, [Example("one", picture(), "How many?", "3", "math", "bars")], 2)
    assert [row.count for row in rows[:2]] == [2, 2]
    assert all(row.value > 0 for row in rows[:2])
    assert len(rows) == 4


def test_the_check_of_what_can_be_read_is_fitted_on_both_kinds():
    rng = torch.Generator().manual_seed(0)
    ours, others = torch.randn(40, 6, generator=rng), torch.randn(40, 6, generator=rng) + 3
    found = familiar.fit(ours, others)
    assert ((ours @ found.weights + found.bias) < 0).float().mean() > 0.9
    assert ((others @ found.weights + found.bias) > 0).float().mean() > 0.9
