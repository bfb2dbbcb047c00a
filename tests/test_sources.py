"""Sources of regions compared: the command to its last row, and that collections are kept."""

import csv

from click.testing import CliRunner
from conftest import tiny_model

from eyeline.evaluation import sources
from eyeline.evaluation.sources import EXHAUSTIVE, FITTED, MOVED
from eyeline.examples import write_examples
from eyeline.scenes import FAMILIES, sample
from eyeline.training.fit import FitSettings


def invoke(tmp_path, *more):
    asked = [
        "--fit",
        tmp_path / "fit",
        "--test",
        tmp_path / "test",
        "--runs",
        tmp_path / "runs",
        "--limit",
        24,
        5,
    ]
    asked += ["--out", tmp_path / "s.csv", *more]
    return CliRunner().invoke(sources.main, [str(each) for each in asked])


def test_every_source_is_scored_by_every_predictor_on_its_own_regions(tmp_path, monkeypatch):
    model = tiny_model("qwen3_vl")
    monkeypatch.setattr(sources, "load", lambda name: model)
    monkeypatch.setattr(sources, "Settings", lambda **of: SETTINGS(**of, max_new_tokens=8, subsets=4))
    monkeypatch.setattr(sources, "FitSettings", lambda: FitSettings(steps=5))
    monkeypatch.setattr("eyeline.evaluation.metrics.MIN_SPREAD", 0.0)
    monkeypatch.setattr("eyeline.training.fit.MIN_SPREAD", -1.0)
    families = list(FAMILIES)
    write_examples((sample(families[at % 5], at) for at in range(24)), tmp_path / "fit")
    write_examples((sample(families[at % 5], 8_000_000 + at) for at in range(5)), tmp_path / "test")
    result = invoke(tmp_path, "--sources", "native:8,grid")
    assert result.exit_code == 0, result.output
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["source"], row["predictor"]) for row in rows} == {
        (source, predictor)
        for source in ("native", "native:8", "grid")
        for predictor in (FITTED, MOVED, EXHAUSTIVE)
    }
    counts = {row["source"]: float(row["regions"]) for row in rows}
    assert counts["native:8"] == 8
    assert counts["native"] > 8
    lds = {(row["source"], row["predictor"]): row["lds"] for row in rows}
    assert lds["native", FITTED] == lds["native", MOVED]
    assert (tmp_path / "s.png").stat().st_size > 1000
    assert len(list((tmp_path / "runs" / "native-8" / "test" / "examples").iterdir())) == 5


def test_examples_to_fit_and_to_test_must_be_others(tmp_path):
    write_examples((sample("math", at) for at in range(24)), tmp_path / "fit")
    write_examples((sample("math", at) for at in range(5)), tmp_path / "test")
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "both to fit and to test" in result.output


SETTINGS = sources.Settings
