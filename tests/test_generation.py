"""One reading of what a model writes, and one set of rules for how: stream, collection and accuracy agree."""

import pytest
import torch
from conftest import build_tiny, picture, tiny_model, tiny_tokenizer

from benchmarks.accuracy import Asked, pad, written
from eyeline.errors import PromptError
from eyeline.evaluation.evaluate import Settings as EvaluationSettings
from eyeline.evaluation.evaluate import evaluate
from eyeline.events import Done, Text
from eyeline.examples import Example
from eyeline.generation import stop_strings, write
from eyeline.training.collect import Settings, collect, collect_one

QUESTION = "How many?"
SETTINGS = Settings(subsets=2, max_new_tokens=40)


def example():
    return Example("scene", picture(), QUESTION, "24", "math", "bars")


def scripted(family, text):
    """A tiny model that writes this text and its end token, whatever it is asked."""
    model = build_tiny(family)
    ids = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
    model.hf.generation_config.sequence_bias = [[ids[: n + 1], 1000.0 * (n + 1)] for n in range(len(ids))]
    return model


def streamed(model, **options):
    with model.stream(picture(), QUESTION, temperature=0, max_new_tokens=40, **options) as stream:
        return list(stream), stream.ids


def answers(model, questions, max_new_tokens):
    return [row.answer for row in written(model, questions, max_new_tokens)]


@pytest.mark.parametrize(
    ("family", "text", "answer"),
    [
        ("qwen3_vl", "24", ""),
        ("qwen3_vl", "It is 24.</think>\n\n24</think>", "24"),
        ("qwen3_vl", "It is 24.</think>\n\n 24 \n", "24"),
        ("qwen3_vl", "</think>2<think>hm</think>4", "24"),
        ("glm4v", "24", "24"),
        ("glm4v", "<think>It is 24.", ""),
        ("glm4v", "<think>It is 24.</think><answer> 24 </answer>", "24"),
    ],
)
def test_stream_accuracy_and_collection_read_the_same_answer(family, text, answer):
    model = scripted(family, text)
    events, ids = streamed(model)
    done, texts = events[-1], [event for event in events if isinstance(event, Text)]
    assert isinstance(done, Done)
    assert ids[-1] == model.tokenizer.eos_token_id
    assert done.answer == answer
    assert "".join(each.text for each in texts if each.channel == "answer").strip() == answer
    asked = Asked(picture(), QUESTION)
    assert answers(model, [asked, asked], 40) == [answer, answer]
    assert collect_one(model, example(), SETTINGS).answer == answer


def test_text_is_shown_with_the_white_space_that_the_answer_leaves_out():
    events, _ = streamed(scripted("qwen3_vl", "Hm.</think>\n\n24 \n"))
    shown = [event.text for event in events if isinstance(event, Text) and event.channel == "answer"]
    assert "".join(shown) == "\n\n24 \n"


def test_thinking_that_was_begun_for_the_model_goes_on_until_it_is_closed():
    for family in ("qwen3_vl", "glm4v"):
        asked = [Asked(picture(), QUESTION, begun="I see"), Asked(picture(), QUESTION, begun="Look")]
        assert answers(scripted(family, " 24."), asked, 40) == ["", ""]
        assert answers(scripted(family, " 24.</think>24"), asked, 40) == ["24", "24"]


@pytest.mark.parametrize(
    "config",
    [
        {"return_dict_in_generate": True},
        {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
        {"output_hidden_states": True},
        {"return_dict_in_generate": True, "output_attentions": True},
        {"stop_strings": ["4.</"]},
        {"stop_strings": "4."},
        {"eos_token_id": [0, tiny_tokenizer("qwen3_vl").convert_tokens_to_ids("4")]},
        {"max_length": 20},
    ],
)
def test_a_generation_config_counts_in_collections_and_accuracy_as_in_a_stream(config):
    model = scripted("qwen3_vl", "It is 24.</think>24")
    for name, value in config.items():
        setattr(model.hf.generation_config, name, value)
    events, ids = streamed(model)
    (written,) = write(model, model.inputs(picture(), QUESTION), 40)
    assert written.ids == ids
    assert [written.spans[0].start, written.spans[-1].end] == [0, len(ids)]
    assert written.answer == events[-1].answer
    assert answers(model, [Asked(picture(), QUESTION)], 40) == [events[-1].answer]
    if "stop_strings" in config:
        assert "".join(span.text for span in written.spans) == "It is 2"
    one = collect_one(model, example(), SETTINGS)
    assert one.spans[-1]["end"] == len(ids)
    assert one.token_falls.isfinite().all()


def test_prompts_of_a_batch_end_each_by_itself():
    model = scripted("qwen3_vl", "a b c d")
    model.hf.generation_config.stop_strings = ["c"]
    short, long = model.inputs(picture(), QUESTION), model.inputs(picture(), QUESTION + QUESTION)
    both = write(model, pad([short, long]), 40)
    assert [each.ids for each in both] == [write(model, each, 40)[0].ids for each in (short, long)]


def test_nothing_is_written_beyond_the_context():
    model = tiny_model("qwen3_vl")
    inputs = model.inputs(picture(), "x" * (model.context_length - 70))
    room = model.context_length - inputs["input_ids"].shape[1]
    assert 0 < room < 60
    (written,) = write(model, inputs, 60)
    assert len(written.ids) == room


def test_a_generation_config_that_cannot_be_followed_is_refused_before_a_collection_or_evaluation_begins(
    tmp_path,
):
    model = build_tiny("qwen3_vl")
    model.hf.generation_config.num_beams = 3
    for begin in (
        lambda: next(collect(model, [example()], tmp_path / "run", SETTINGS)),
        lambda: next(evaluate(model, [example()], {}, tmp_path / "run", EvaluationSettings())),
        lambda: answers(model, [Asked(picture(), QUESTION)], 4),
        lambda: model.stream(picture(), QUESTION),
    ):
        with pytest.raises(PromptError, match=r"num_beams=3 cannot be followed.*generation_config"):
            begin()
    assert not (tmp_path / "run").exists()


def test_stop_strings_are_the_callers_or_else_the_models():
    model = build_tiny("qwen3_vl")
    assert stop_strings(model) == []
    model.hf.generation_config.stop_strings = "END"
    assert stop_strings(model) == ["END"]
    assert stop_strings(model, ["a", "b"]) == ["a", "b"]


def test_writing_leaves_rope_deltas_as_they_were(tiny):
    inner, mark = tiny.hf.model, torch.tensor([[17]])
    before, inner.rope_deltas = inner.rope_deltas, mark
    try:
        write(tiny, tiny.inputs(picture(), QUESTION), 2)
        assert inner.rope_deltas is mark
    finally:
        inner.rope_deltas = before
