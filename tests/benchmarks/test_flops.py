"""Counting operations on shapes alone: the shapes are those of the model, and the counts those of its products."""

import csv

import pytest
from click.testing import CliRunner
from conftest import tiny_config
from transformers import Qwen3VLConfig

from benchmarks import flops
from benchmarks.flops import (
    QWEN3_VL_8B,
    Setting,
    attributing,
    going_back,
    measure,
    on_meta,
    reading,
    telling,
)


def test_the_shapes_are_those_of_the_model_of_that_name():
    model = on_meta(Qwen3VLConfig(**QWEN3_VL_8B))
    assert sum(each.numel() for each in model.hf.parameters()) == pytest.approx(8.77e9, rel=0.001)


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v", "qwen2_5_vl"])
def test_passes_count_their_matrices_and_their_attention(family):
    model = on_meta(tiny_config(family))
    config = model.adapter.text_config(model.hf)
    layers = model.adapter.layers(model.hf)
    matrices = sum(each.numel() for layer in layers for each in layer.parameters() if each.ndim == 2)
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * config.num_attention_heads * dim * len(layers)  # of a query and a key: scores and values
    assert reading(model, before=5, length=7) == pytest.approx(2 * 7 * (matrices + 12 * attention), rel=0.02)
    assert going_back(model, 7) == pytest.approx(2 * 7 * (matrices + 2 * 7 * attention), rel=0.02)
    assert telling(model, 7) == 2 * 7 * config.hidden_size * config.vocab_size


def test_attribution_counts_what_features_multiply():
    model = on_meta(tiny_config("qwen3_vl"))
    (image, few), (larger, many) = (
        attributing(model, Setting(patches=patches, regions=8, span=6)) for patches in (100, 300)
    )
    config = model.adapter.text_config(model.hf)
    heads = config.num_hidden_layers * config.num_attention_heads
    products = (
        9 * 2 * 2 * 6 * heads * config.head_dim
    )  # scores and contributions, of a patch and without each of 8 regions
    gathered = (
        4 * 2 * 6 * heads * 8
    )  # of a patch: two features, shared among regions, and two sums of what they move
    anew = 2 * 2 * 6 * heads * 8 * 8  # two sums over regions of what is read without each of them
    sums = 3 * 2 * 6 * heads  # and weighted, for the heat
    assert many - few == pytest.approx(200 * (products + gathered + anew + sums))
    again = 8 * (reading(model, 300, 300) - reading(model, 100, 100))
    assert larger - image == pytest.approx(2 * 200 * heads * config.head_dim**2 + again)
    assert attributing(model, Setting(patches=100, regions=8, span=12))[1] == pytest.approx(2 * few)


def test_methods_that_run_the_model_again_count_its_passes():
    setting, model = Setting(patches=10, regions=6, prompt=4, span=5), on_meta(tiny_config("qwen3_vl"))
    rows = {(row.method, row.tokens): row for row in measure(model, (10, 20), setting)}
    assert rows["eyeline", 10].over_eyeline == 1
    image, span = attributing(model, setting)
    assert 20e9 * rows["eyeline", 20].gflop_per_token == pytest.approx(image + 4 * span)
    row = reading(model, 10, 4 + 20) + telling(model, 20)
    assert 20e9 * rows["exhaustive", 20].gflop_per_token == pytest.approx(7 * row)
    assert 20e9 * rows["regression-32", 20].gflop_per_token == pytest.approx(33 * row)
    back = rows["attn-lrp", 20].gflop_per_token * 20e9 - reading(model, 0, 34) - 2 * telling(model, 20)
    assert back == pytest.approx(4 * going_back(model, 34))


def test_the_command_writes_every_method_at_every_length(tmp_path, monkeypatch):
    monkeypatch.setattr(flops, "on_meta", lambda config: on_meta(tiny_config("qwen3_vl")))
    result = CliRunner().invoke(
        flops.main, ["--tokens", "8", "--tokens", "30", "--out", str(tmp_path / "f.csv")]
    )
    assert result.exit_code == 0, result.output
    with (tmp_path / "f.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["tokens"]) for row in rows} == {
        (method, tokens)
        for method in ("decoding", "eyeline", "exhaustive", "regression-32", "attn-lrp")
        for tokens in ("8", "30")
    }
