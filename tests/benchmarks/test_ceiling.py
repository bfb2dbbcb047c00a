"""The ceiling: what each regression can see of planted effects, and the command to its last row."""

import csv

import pytest
import torch
from click.testing import CliRunner

import eyeline
from benchmarks import ceiling
from benchmarks.ceiling import Measured, evaluate, ridge, with_pairs
from eyeline.examples import write_examples
from eyeline.scenes import sample


def planted(interaction: float, seed: int = 0) -> Measured:
    """Three spans over eight regions: each region's own effect, and that of two pairs hidden together."""
    rng = torch.Generator().manual_seed(seed)
    effects = torch.randn(3, 8, generator=rng)
    asked, given = (torch.rand(count, 8, generator=rng) < 0.5 for count in (32, 1024))

    def falls(subsets):
        pairs = subsets[:, [0, 2]] & subsets[:, [1, 3]]
        return effects @ subsets.float().T + interaction * pairs.float().sum(1)

    return Measured(
        "math", {"estimator": torch.randn(3, 32, generator=rng), "exhaustive": effects @ asked.float().T},
        torch.tensor([1, 2, 3]), asked, falls(asked), given, falls(given),
    )  # fmt: skip


def found(interaction: float) -> dict[tuple[str, int | None, str], float]:
    rows = evaluate([planted(interaction, seed) for seed in range(3)])
    return {(row.predictor, row.forward_passes, row.metric): row.value for row in rows}


def test_sums_of_effects_are_found_again_by_all_that_measure():
    values = found(interaction=0.0)
    for name, passes in (("exhaustive", None), ("ceiling, linear", 512), ("ceiling, pairwise", 512)):
        assert values[name, passes, "lds"] == pytest.approx(1, abs=0.01), name
        assert values[name, passes, "r2_span"] == pytest.approx(1, abs=0.01), name
    assert values["contextcite", 1024, "lds"] > values["contextcite", 32, "lds"]
    assert abs(values["estimator", None, "lds"]) < 0.5


def test_pairs_of_regions_are_seen_only_by_the_regression_that_is_given_them():
    values = found(interaction=6.0)
    assert values["ceiling, pairwise", 512, "r2_span"] > 0.98
    assert values["ceiling, linear", 512, "r2_span"] < 0.95
    assert values["ceiling, linear", 512, "r2_span"] > values["exhaustive", None, "r2_span"]


def test_pairs_are_what_is_hidden_together():
    rows = with_pairs(torch.tensor([[True, False, True], [True, True, True]]))
    assert rows.tolist() == [[1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]]


def test_a_regression_predicts_subsets_that_it_was_not_given():
    rng = torch.Generator().manual_seed(0)
    inputs, asked = torch.randn(100, 4, generator=rng), torch.randn(5, 4, generator=rng)
    weights = torch.tensor([[1.0, -2.0, 0.0, 0.5]])
    assert torch.allclose(ridge(inputs, weights @ inputs.T + 3, asked), weights @ asked.T + 3, atol=0.01)


def test_the_command_writes_every_predictor_and_a_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(ceiling, "COUNTS", (8, 16))
    monkeypatch.setattr(ceiling, "CEILING", 16)
    monkeypatch.setattr(ceiling, "load", lambda name: eyeline.load("mini"))
    write_examples([sample("math", 8_000_003)], tmp_path / "data")
    asked = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out" / "c.csv")]
    result = CliRunner().invoke(ceiling.main, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {"estimator", "exhaustive", "contextcite", "ridge", "ceiling, linear", "ceiling, pairwise"}
    assert {(row["predictor"], row["metric"]) for row in rows} == {
        (name, metric) for name in names for metric in ("lds", "r2_span")
    }
    for name in ("contextcite", "ridge"):
        assert {row["forward_passes"] for row in rows if row["predictor"] == name} == {"8", "16"}
    assert (tmp_path / "out" / "c.png").stat().st_size > 1000


def test_images_without_a_span_that_varies_are_left_out_and_none_at_all_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(ceiling, "measure", lambda *_: None)
    monkeypatch.setattr(ceiling, "load", lambda name: eyeline.load("mini"))
    write_examples([sample("math", 8_000_003)], tmp_path / "data")
    asked = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "c.csv")]
    result = CliRunner().invoke(ceiling.main, asked)
    assert result.exit_code == 1
    assert "No span" in result.output
