"""What a model is asked reaches the function behind it as it was asked."""

import inspect

import pytest
from conftest import picture, tiny_model

import eyeline.elsewhere
import eyeline.notebook
import eyeline.stream
from eyeline import Model
from eyeline.notebook import Watched
from eyeline.stream import Stream


@pytest.mark.parametrize(
    ("module", "name"),
    [(eyeline.stream, "stream"), (eyeline.stream, "attribute"), (eyeline.elsewhere, "follow")],
)
def test_help_on_a_model_shows_each_option_of_the_function_behind_it(module, name):
    method = inspect.signature(getattr(Model, name)).parameters
    behind = inspect.signature(getattr(module, name)).parameters
    assert {key: behind[key].default for key in behind if key != "model"} == {
        key: method[key].default for key in method if key != "self"
    }
    watch, stream = (inspect.signature(each).parameters for each in (Model.watch, Model.stream))
    assert {key: watch[key].default for key in watch} == {key: stream[key].default for key in stream}
    for option in (each for each in method if each != "self"):
        assert f"`{option}`" in (getattr(Model, name).__doc__ or "") or option in (
            "images",
            "prompt",
            "top_p",
            "top_k",
        )


GIVEN = {
    "estimator": "e", "regions": "grid", "max_new_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 1,
    "stop": "x", "pending_bytes": 7, "hidden": None, "sources": False, "top_logprobs": 2, "repetition_penalty": 1.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name", "kind"), [(eyeline.stream, "stream", Stream), (eyeline.notebook, "watch", Watched)]
)
def test_options_reach_the_functions_behind_the_models_own_methods(monkeypatch, module, name, kind):
    model, taken = tiny_model("qwen3_vl"), {}
    monkeypatch.setattr(module, name, lambda *_, **options: taken.update(options) or object.__new__(kind))
    getattr(model, name)(picture(), "What?", **GIVEN)
    assert taken == GIVEN


@pytest.mark.parametrize("given", [{}, {"top_p": 0.9}, {"top_k": 5}])
def test_what_is_left_out_is_left_to_the_models_generation_config(monkeypatch, given):
    asked = []
    monkeypatch.setattr(eyeline.stream, "check_options", lambda _, options: asked.append(dict(options)))
    with tiny_model("qwen3_vl").stream(picture(), "What?", max_new_tokens=1, **given):
        pass
    assert asked == [given]
