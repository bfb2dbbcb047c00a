"""The comparison of ways of hiding: what it calls empty, what the text gives away, and that it can tell ways apart."""

import functools

import numpy as np
import pytest
import torch
from conftest import picture, tiny_model
from PIL import Image

import eyeline
from eyeline.ablation import METHODS
from eyeline.evaluation.hiding import compare, empty_regions, log_probs_without_image, speed_up
from eyeline.regions import Regions
from eyeline.scenes import sample
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
    return compare(model, example, own, regions_of(model, own.picture, own.inputs), SHORT)


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
    ratios = speed_up(model, own, regions_of(model, own.picture, own.inputs))
    assert set(ratios) == set(METHODS)
    assert all(ratio > 0 for ratio in ratios.values())
