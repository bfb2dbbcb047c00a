"""What cannot work is refused before anything starts."""

import dataclasses
import threading

import pytest
import torch
from conftest import build_tiny, tiny_model
from streams import QUESTION, random_estimator
from test_features import PICTURES

from eyeline.errors import EstimatorError, EyelineError, ImageError, PromptError, RegionError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"cache_implementation": "static"}, "cache_implementation='static'"),
        ({"cache_implementation": "offloaded_static"}, "cache_implementation"),
        ({"cache_implementation": "quantized"}, "cache_implementation"),
        ({"assistant_model": object()}, "assistant_model"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
        ({"past_key_values": object()}, "past_key_values"),
        ({"use_cache": False}, "use_cache"),
        ({"guidance_scale": 1.5}, "guidance_scale"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
        ({"prefill_chunk_size": 8}, "prefill_chunk_size"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected 1 to"),
        ({"max_new_tokens": 5000}, "max_new_tokens is 5000; expected 1 to"),
        ({"max_length": 50}, "max_new_tokens"),
        ({"topp": 0.5}, "did you mean top_p?"),
        ({"streamer": object()}, "'streamer' is no option"),
        ({"wibble": 1}, "'wibble' is no option"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_starts(options, words):
    before = threading.enumerate()  # those of a stream that another test has dropped may be ending
    with pytest.raises(PromptError) as caught:
        tiny_model("qwen3_vl").stream(PICTURES[0], QUESTION, **options)
    assert words in str(caught.value)
    begun = [thread for thread in threading.enumerate() if thread not in before]
    assert not [thread for thread in begun if thread.name.startswith("eyeline")]


def test_a_refused_option_in_the_models_own_generation_config_is_refused_too():
    model = build_tiny("qwen3_vl")
    model.hf.generation_config.num_beams = 4
    with pytest.raises(PromptError, match="num_beams=4"):
        model.stream(PICTURES[0], QUESTION)
    stream = model.stream(PICTURES[0], QUESTION, num_beams=1, max_new_tokens=2)
    assert list(stream)[-1].tokens == 2


def test_bad_prompts_images_regions_and_stops_are_refused_before_anything_starts(tmp_path):
    model = tiny_model("qwen3_vl")
    not_json = tmp_path / "boxes.json"
    not_json.write_text("nothing")
    cases = [
        (PromptError, lambda: model.stream(PICTURES[0], "  ")),
        (PromptError, lambda: model.stream(PICTURES[0], "word " * 3000)),
        (ImageError, lambda: model.stream([], QUESTION)),
        (ImageError, lambda: model.stream(tmp_path / "missing.png", QUESTION)),
        (RegionError, lambda: model.stream(PICTURES[0], QUESTION, regions="squares")),
        (RegionError, lambda: model.stream(PICTURES[0], QUESTION, regions=not_json)),
        (RegionError, lambda: model.stream(PICTURES[0], QUESTION, regions=["grid", "grid"])),
        (EyelineError, lambda: model.stream(PICTURES[0], QUESTION, stop="")),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, "")),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, [])),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, "word " * 3000)),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, [3, 10**6])),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, [-1])),
    ]
    for kind, call in cases:
        with pytest.raises(kind) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_an_estimator_of_another_model_is_refused_also_as_an_object(tiny):
    other = build_tiny(tiny.adapter.family, seed=1)
    with pytest.raises(EstimatorError, match="was fitted for"):
        tiny.stream(PICTURES[0], QUESTION, estimator=random_estimator(other))
    wrong = dataclasses.replace(random_estimator(tiny), weights=torch.zeros(2, 47))
    with pytest.raises(EstimatorError, match="48 features"):
        tiny.attribute(PICTURES[0], QUESTION, "A bar.", estimator=wrong)
