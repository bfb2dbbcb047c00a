"""The command that times thinking again: both ways measure the same, and its table."""

import csv

from click.testing import CliRunner

from benchmarks import rethinking
from eyeline import load
from eyeline.examples import write_examples
from eyeline.scenes import sample


def test_one_by_one_and_together_measure_the_same_totals_and_the_command_writes_a_row_for_each_trace(
    tmp_path,
):
    scenes = [sample("science", seed) for seed in (8_000_003, 8_000_004)]
    write_examples(scenes, tmp_path / "data")
    asked = ["--data", str(tmp_path / "data"), "--least", "20", "--out", str(tmp_path / "r.csv")]
    result = CliRunner().invoke(rethinking.main, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with (tmp_path / "r.csv").open() as file:
        *rows, median = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [scene.id for scene in scenes]
    assert median["id"] == "median"
    for row in rows:
        assert int(row["tokens"]) >= 20
        assert float(row["worst_difference"]) < 0.01
        assert float(row["times_faster"]) > 1


def test_no_trace_that_is_long_enough_is_told(tmp_path, monkeypatch):
    write_examples([sample("science", 8_000_003)], tmp_path / "data")
    monkeypatch.setattr(rethinking, "load", lambda name: load("mini"))
    asked = ["--data", str(tmp_path / "data"), "--least", "900", "--out", str(tmp_path / "r.csv")]
    result = CliRunner().invoke(rethinking.main, asked)
    assert result.exit_code == 1
    assert "No trace of 900 to 1000 tokens" in result.output
