"""What a model is asked is asked of the function behind it, and help on the one shows the other's options."""

import inspect

import pytest
from conftest import picture, tiny_model

import eyeline.elsewhere
import eyeline.notebook
import eyeline.stream
from eyeline import Model
from eyeline.notebook import Watched

BEHIND = [
    (eyeline.stream, "stream"),
    (eyeline.stream, "attribute"),
    (eyeline.elsewhere, "follow"),
    (eyeline.notebook, "watch"),
]


@pytest.mark.parametrize(("module", "name"), BEHIND)
def test_a_models_methods_are_the_functions_that_take_it_first(module, name):
    model, behind = tiny_model("qwen3_vl"), getattr(module, name)
    method = getattr(model, name)
    assert (method.__func__, method.__self__) == (behind, model)
    assert next(iter(inspect.signature(behind).parameters)) == "model"
    assert list(inspect.signature(method).parameters)[:2] == ["images", "prompt"]


@pytest.mark.parametrize(("module", "name"), BEHIND[:3])
def test_help_tells_what_each_option_means(module, name):
    named = {"model", "images", "prompt", "top_p", "top_k"}  # which tell it themselves
    for option in inspect.signature(getattr(module, name)).parameters.keys() - named:
        assert f"`{option}`" in (getattr(module, name).__doc__ or "")


def test_help_on_watch_shows_each_option_of_stream():
    watch, stream = (inspect.signature(each) for each in (Model.watch, Model.stream))
    assert watch.parameters == stream.parameters
    assert watch.return_annotation is Watched


@pytest.mark.parametrize("given", [{}, {"top_p": 0.9}, {"top_k": 5}])
def test_what_is_left_out_is_left_to_the_models_generation_config(monkeypatch, given):
    asked = []
    monkeypatch.setattr(eyeline.stream, "check_options", lambda _, options: asked.append(dict(options)))
    with tiny_model("qwen3_vl").stream(picture(), "What?", max_new_tokens=1, **given):
        pass
    assert asked == [given]
