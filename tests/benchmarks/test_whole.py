"""The scripts that measure whole shapes run, on tiny ones: what they would write of large ones is all there."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import whole
from benchmarks.flops import on_meta

ROOT = Path(__file__).parents[2]


def run(script, out, *options):
    """The rows that a script of runs/ writes."""
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    asked = [ROOT / "runs" / script, *options, "--out", out]
    done = subprocess.run(
        list(map(str, asked)), env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        return {row["measure"]: row for row in csv.DictReader(file)}


def check_whole(rows, lengths, rivals):
    for how in ("with sources", "without sources", "without sources and leak map"):
        for what in (
            "wall of decoding over generate's",
            "decoding thread's CPU over generate's",
            "tokens a second",
        ):
            row = rows[f"{what}, {how}"]
            assert 0 < float(row["low"]) <= float(row["value"]) <= float(row["high"])
            assert row["count"] == "2"
    for sources in ("with sources", "without sources"):
        for tokens in lengths:
            assert float(rows[f"attribution, ms a token at {tokens}, {sources}"]["value"]) > 0
    for rival in ("exhaustive", "attn-lrp"):
        assert float(rows[f"{rival}, CPU ms a token at {rivals}"]["value"]) > 0
        assert 0 < float(rows[f"{rival}, share that was run"]["value"]) < 1
    assert rows["processor"]["value"]
    assert "vector and matrix units" in rows


def test_the_script_of_whole_shapes_writes_every_row(tmp_path):
    rows = run(
        "whole.sh", tmp_path / "w.csv", "--shape", "tiny", "--precision", "float32", "--patches", 36, "--written", 40,
        "--pairs", 2, "--tokens", 60, "--tokens", 90, "--rivals", 40, "--positions", 250,
    )  # fmt: skip
    check_whole(rows, (60, 90), 40)


def test_the_script_for_cuda_checks_and_measures_tiny_shapes_on_the_cpu(tmp_path):
    rows = run("gpu.sh", tmp_path / "g.csv", "--device", "cpu", "--tiny")
    check_whole(rows, (60,), 40)
    for precision, close in (("float32", 1e-5), ("bfloat16", 0.02)):
        assert float(rows[f"ids with a capture are those without, {precision}"]["value"]) == 1
        assert float(rows[f"largest difference of a logit with a capture, {precision}"]["value"]) == 0
        assert float(rows[f"largest difference of an attention weight, {precision}"]["value"]) < close
    differences = [row for name, row in rows.items() if "of log-sum-exp" in name]
    assert len(differences) == 8
    assert all(float(row["value"]) < 1e-3 for row in differences)
    assert float(rows["two streams at once: errors"]["value"]) == 0
    assert float(rows["two streams at once: ids as alone"]["value"]) == 1
    size = float(rows["two streams at once: largest effect, nats"]["value"])
    assert float(rows["two streams at once: largest difference of an effect, nats"]["value"]) <= 1e-3 * size


@pytest.mark.parametrize(("shape", "billions"), [("2b", 2.13), ("8b", 8.77)])
def test_published_shapes_have_as_many_weights_as_are_published(shape, billions):
    from transformers import Qwen3VLConfig

    hf = on_meta(Qwen3VLConfig(**whole.SHAPES[shape])).hf
    assert sum(weight.numel() for weight in hf.parameters()) == pytest.approx(billions * 1e9, rel=0.005)


def test_the_interval_of_a_median_holds_it_and_narrows_with_more_pairs():
    values = [1.0, 1.1, 1.2, 0.9, 1.3, 1.05, 0.95]
    few, many = whole.of_median("x", values), whole.of_median("x", values * 20)
    assert few.value == many.value == 1.05
    assert few.low <= many.low <= 1.05 <= many.high <= few.high
    assert many.high - many.low < few.high - few.low
