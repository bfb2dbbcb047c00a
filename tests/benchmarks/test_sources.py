"""Sources of regions compared: the command to its last row, and that collections are kept."""

import csv

from click.testing import CliRunner
from conftest import tiny_model

from benchmarks import sources
from benchmarks.sources import EXHAUSTIVE, FITTED, MOVED
from eyeline.examples import write_examples
from eyeline.scenes import FAMILIES, sample
from eyeline.training.weights import FitSettings


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


def test_every_source_is_evaluated_by_every_predictor_on_its_own_regions(tmp_path, monkeypatch):
    model = tiny_model("qwen3_vl")
    monkeypatch.setattr(sources, "load", lambda name: model)
    monkeypatch.setattr(
        sources, "Settings", lambda **of: SETTINGS(**{**of, "max_new_tokens": 8, "subsets": 4})
    )
    monkeypatch.setattr(sources, "FitSettings", lambda: FitSettings(steps=5))
    monkeypatch.setattr("eyeline.metrics.MIN_SPREAD", 0.0)
    monkeypatch.setattr("eyeline.training.weights.MIN_SPREAD", -1.0)
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


def test_unknown_sources_and_too_few_examples_are_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "load", lambda name: tiny_model("qwen3_vl"))
    write_examples((sample("math", at) for at in range(24)), tmp_path / "fit")
    write_examples((sample("math", 8_000_000 + at) for at in range(2)), tmp_path / "test")
    result = invoke(tmp_path, "--sources", "native, nativ")
    assert result.exit_code == 1
    assert "No source of regions 'nativ'" in result.output
    assert not (tmp_path / "runs").exists()
    write_examples((sample("math", at) for at in range(5)), tmp_path / "fit5")
    few = invoke(tmp_path, "--fit", tmp_path / "fit5")
    assert few.exit_code == 1
    assert "5 examples to fit on" in few.output


def test_a_folder_that_holds_more_gives_only_what_is_asked_for(tmp_path, monkeypatch):
    model = tiny_model("qwen3_vl")
    monkeypatch.setattr(
        sources, "Settings", lambda **of: SETTINGS(**{**of, "max_new_tokens": 8, "subsets": 4})
    )
    some = [sample("math", at) for at in range(3)]
    sources.gather(model, some, "native", tmp_path / "run")
    assert [one.id for one in sources.gather(model, some[1:2], "native", tmp_path / "run")] == [some[1].id]


SETTINGS = sources.Settings
