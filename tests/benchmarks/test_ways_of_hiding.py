"""The comparison of ways of hiding: what it calls empty, what the text gives away, and that it can tell ways apart."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import picture, tiny_model
from PIL import Image

import eyeline
from benchmarks import ways_of_hiding
from benchmarks.ways_of_hiding import compare, empty_regions, log_probs_without_image, naive_ms, speed_up
from eyeline.ablation import METHODS
from eyeline.examples import write_examples
from eyeline.regions import Regions
from eyeline.scenes import sample
from eyeline.teacher_forcing import continued
from eyeline.training.collect import Settings, answer, regions_of

SHORT = Settings(subsets=4, max_new_tokens=40)


def test_regions_of_one_colour_are_empty_and_no_others():
    pixels = np.full((64, 96, 3), 200, dtype=np.uint8)
    pixels[:32, :32] = np.asarray(picture(32, 32))
    labels = torch.tensor([[0, 1, 1], [2, 2, 1]])
    assert empty_regions(Image.fromarray(pixels), Regions((labels,), 3)).tolist() == [False, True, True]


def test_without_an_image_a_token_has_the_log_prob_of_the_text_alone(tiny):
    trace = torch.tensor(tiny.tokenizer.encode("so it is 3.", add_special_tokens=False))
    found = log_probs_without_image(tiny, "How many?", trace)
    inputs = tiny.inputs([], [{"role": "user", "content": "How many?"}])
    for at in range(len(trace)):
        ids = torch.cat([inputs["input_ids"], trace[None, :at]], dim=1)
        with torch.inference_mode():
            logits = tiny.hf(input_ids=ids, use_cache=False).logits[0, -1]
        assert float(found[at]) == pytest.approx(float(logits.log_softmax(-1)[trace[at]]), abs=1e-4)


@functools.cache
def found():
    model, example = eyeline.load("mini"), sample("code", 8_000_001)
    own = answer(model, example, SHORT.max_new_tokens, SHORT.max_spans)
    return compare(model, example, own, regions_of(model, own.pictures, own.inputs), SHORT)


def test_every_way_is_measured_on_the_same_traces():
    measures = {measure for _, measure in found()}
    assert {
        "drop_of_given_tokens",
        "all_hidden_from_no_image",
        "leak",
        "lds_of_single_effects",
        "pointing",
    } <= measures
    for measure in measures:
        assert {way for way, name in found() if name == measure} == set(METHODS), measure
    for way in METHODS:
        assert found()[way, f"spearman_with_{way}"] == pytest.approx(1)
        assert 0 <= found()[way, "pointing"] <= 1
    assert found()["pixels", "leak"] == pytest.approx(0)
    assert found()["tokens", "leak"] != pytest.approx(0, abs=1e-3)


def test_the_engine_is_timed_against_the_naive_loop():
    model = tiny_model("qwen3_vl")
    own = answer(model, sample("general", 3), 12, 64)
    ratios = speed_up(model, own, regions_of(model, own.pictures, own.inputs))
    assert set(ratios) == set(METHODS)
    assert all(ratio > 0 for ratio in ratios.values())


def test_passes_without_an_image_and_the_naive_loop_leave_rope_deltas_as_they_were(tiny):
    inner, mark = tiny.hf.model, torch.tensor([[17]])
    trace = torch.tensor(tiny.tokenizer.encode("so it is 3.", add_special_tokens=False))
    before, inner.rope_deltas = inner.rope_deltas, mark
    try:
        log_probs_without_image(tiny, "How many?", trace)
        assert inner.rope_deltas is mark
        assert naive_ms(tiny, continued(tiny.inputs(picture(), "How many?"), trace)) > 0
        assert inner.rope_deltas is mark
    finally:
        inner.rope_deltas = before


def test_a_measure_of_one_image_a_family_is_written_without_an_interval(tmp_path, monkeypatch):
    scenes = [sample(family, seed) for seed in (3, 4) for family in ("math", "code")]
    write_examples(scenes, tmp_path / "data")
    model = tiny_model("qwen3_vl")
    monkeypatch.setattr(ways_of_hiding, "load", lambda name: model)
    monkeypatch.setattr(ways_of_hiding, "answer", lambda *_: SimpleNamespace(pictures=[None], inputs=None))
    monkeypatch.setattr(ways_of_hiding, "regions_of", lambda *_: None)
    values = iter((0.1, 0.2, 0.3, 0.5))
    monkeypatch.setattr(ways_of_hiding, "compare", lambda *_: {("pixels", "leak"): next(values)})
    speeds = iter((3.0, 4.0))
    monkeypatch.setattr(ways_of_hiding, "speed_up", lambda *_: {"pixels": next(speeds)})
    asked = ["--data", str(tmp_path / "data"), "--timed", "2", "--out", str(tmp_path / "h.csv")]
    result = CliRunner().invoke(ways_of_hiding.main, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    leak, speed = (tmp_path / "h.csv").read_text().splitlines()[1:]
    assert speed == "pixels,speed_up,3.5000,,,2"
    way, measure, mean, low, high, images = leak.split(",")
    assert (way, measure, mean, images) == ("pixels", "leak", "0.2750", "4")
    assert float(low) < 0.275 < float(high)
