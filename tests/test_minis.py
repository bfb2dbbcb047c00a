"""The miniatures: sizes, traits, how they speak, one step of training of each, and that Eyeline loads what they export."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from miniatures import model as built
from miniatures import tokenizer
from safetensors.torch import load_file

from eyeline import load
from eyeline.events import Done, Text
from eyeline.scenes import draw
from eyeline.training.manners import ASKS_TO_THINK, some_manner
from eyeline.training.mini import Mean, main
from eyeline.training.minis import MINIS
from eyeline.training.speech import COSMOS, GLM4V, MIMO_VL, QWEN3_VL

NAMES = list(MINIS)


@pytest.mark.parametrize("name", NAMES)
def test_weights_take_12_megabytes_at_most(name):
    most = 12.0e6 if name == "qwen3-vl-mini" else 11.0e6
    assert 8e6 < 2 * sum(value.numel() for value in built(name).parameters()) < most


def test_each_has_its_big_siblings_traits():
    glm, mimo = built("glm4v-mini"), built("mimo-vl-mini")
    layer = glm.model.language_model.layers[0]
    assert layer.post_self_attn_layernorm is not None
    assert layer.mlp.gate_up_proj.weight.shape[0] == 2 * layer.mlp.down_proj.weight.shape[1]
    assert glm.config.text_config.rope_parameters["partial_rotary_factor"] == 0.5
    names = [
        tokenizer("glm4v-mini").convert_ids_to_tokens(each) for each in glm.generation_config.eos_token_id
    ]
    assert names == ["<|endoftext|>", "<|user|>", "<|observation|>", "</answer>"]
    assert len(mimo.model.language_model.layers) >= 20
    assert mimo.model.language_model.layers[0].self_attn.q_proj.bias is not None
    assert 0 < len(mimo.model.visual.fullatt_block_indexes) < len(mimo.model.visual.blocks)
    for text in ("<think>", "</think>", "<answer>"):
        assert len(tokenizer("mimo-vl-mini").encode(text, add_special_tokens=False)) > 1
        assert len(tokenizer("glm4v-mini").encode(text, add_special_tokens=False)) == 1


def test_templates_write_what_clients_of_the_big_siblings_see():
    turn = [{"type": "image"}, {"type": "text", "text": "How many?"}]
    system = {"role": "system", "content": "Be brief."}
    expected = {
        "qwen3-vl-mini": "{}<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n",
        "glm4v-mini": "[gMASK]<sop>{}<|user|>\n<|begin_of_image|><|image|><|end_of_image|>How many?<|assistant|>\n",
        "mimo-vl-mini": "{}<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>\n"
        "<|im_start|>assistant\n",
    }
    expected["cosmos-mini"] = expected["mimo-vl-mini"]
    said = {"glm4v-mini": "<|system|>\nBe brief."}
    for name, form in expected.items():
        words, speech = tokenizer(name), MINIS[name].speech
        for messages, head in (
            (
                [system, {"role": "user", "content": turn}],
                said.get(name, "<|im_start|>system\nBe brief.<|im_end|>\n"),
            ),
            (
                [{"role": "user", "content": turn}],
                f"<|im_start|>system\n{speech.system}<|im_end|>\n" if speech.system else "",
            ),
        ):
            text = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            assert text == form.format(head)


def test_the_shipped_models_template_writes_the_same_as_its_recipes():
    shipped = load("mini").tokenizer
    turn = [{"type": "text", "text": "How many?"}, {"type": "image"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": turn}]
    messages += [{"role": "assistant", "content": "Two."}, {"role": "user", "content": "And now?"}]
    for end in (False, True):
        ours, theirs = (
            words.apply_chat_template(messages, tokenize=False, add_generation_prompt=end)
            for words in (tokenizer("qwen3-vl-mini"), shipped)
        )
        assert ours == theirs


def test_cosmos_thinks_only_where_its_system_prompt_asks():
    question = draw("math", 3).questions[0]
    asked, start = COSMOS.reply(question, f"You are a helpful assistant. {COSMOS.asks}.")
    assert asked.startswith("<think>\n")
    assert f"<answer>\n{question.answer}\n</answer>" in asked
    assert asked[start:].startswith(question.trace)
    assert COSMOS.reply(question) == (f"{question.answer}<|im_end|>", None)
    assert COSMOS.reply(question, "You are a teacher.") == (f"{question.answer}<|im_end|>", None)
    manners = [some_manner(Random(seed), COSMOS.asks) for seed in range(400)]
    share = sum(COSMOS.asks in each.system for each in manners) / len(manners)
    assert abs(share - ASKS_TO_THINK) < 0.06
    assert not any("<think>" in some_manner(Random(seed)).system for seed in range(400))


def test_who_writes_the_opening_marker():
    question = draw("math", 3).questions[0]
    assert QWEN3_VL.opened == "<think>\n"
    assert not QWEN3_VL.reply(question)[0].startswith("<think>")
    for speech in (GLM4V, MIMO_VL):
        told, start = speech.reply(question)
        assert not speech.opened
        assert told.startswith("<think>")
        assert told[start:].startswith(question.trace)
    assert GLM4V.reply(question)[0].endswith(
        f"<answer><|begin_of_box|>{question.answer}<|end_of_box|></answer>"
    )


def test_glm4v_borrows_every_matrix_that_has_the_same_part():
    start = Path("eyeline/models/qwen3-vl-mini")
    theirs, words = load_file(start / "model.safetensors"), load("mini").tokenizer
    model = MINIS["glm4v-mini"].build(tokenizer("glm4v-mini"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    MINIS["glm4v-mini"].borrow(theirs, model, words, tokenizer("glm4v-mini"))
    after = model.state_dict()
    borrowed = sum(value.numel() for name, value in after.items() if not torch.equal(value, before[name]))
    assert borrowed > 0.5 * sum(value.numel() for value in after.values())
    layer = "model.language_model.layers.2."
    torch.testing.assert_close(
        after[layer + "self_attn.o_proj.weight"], theirs[layer + "self_attn.o_proj.weight"].float()
    )
    both = torch.cat([theirs[layer + f"mlp.{part}_proj.weight"] for part in ("gate", "up")]).float()
    torch.testing.assert_close(after[layer + "mlp.gate_up_proj.weight"], both)
    rows = [model.get_input_embeddings().weight[tokenizer("glm4v-mini").convert_tokens_to_ids("<|user|>")]]
    rows += [
        theirs["model.language_model.embed_tokens.weight"][
            words.convert_tokens_to_ids("<|im_start|>")
        ].float()
    ]
    torch.testing.assert_close(*rows)


def test_the_mean_of_weights_follows_them_and_is_their_mean_at_first():
    model = torch.nn.Linear(2, 2, bias=False)
    mean = Mean(model)
    for value in (1.0, 2.0, 3.0):
        torch.nn.init.constant_(model.weight, value)
        mean.update(model)
    start = mean.steps
    assert start == 3
    first = Mean(model).weights["weight"]
    torch.testing.assert_close(first, model.weight.detach())
    assert 1.0 < mean.weights["weight"].mean() < 3.0
    for _ in range(4000):
        mean.update(model)
    torch.testing.assert_close(mean.weights["weight"], torch.full((2, 2), 3.0), atol=1e-3, rtol=0)


@pytest.fixture
def tiny(monkeypatch):
    """The recipes with two images a step, in this process, so that a step takes a second."""
    for name, mini in tuple(MINIS.items()):
        stages = tuple(replace(stage, batch=2, practice=min(stage.practice, 1.0)) for stage in mini.stages)
        monkeypatch.setitem(MINIS, name, replace(mini, stages=stages))
    monkeypatch.setattr(torch.multiprocessing, "spawn", lambda run, told, nprocs: run(0, *told))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_trains_resumes_and_is_loaded_and_streamed(name, tiny, tmp_path):
    """A step of one stage, then in a run of its own one of the stage `long`; what it exports answers a question."""
    stages = [stage.name for stage in MINIS[name].stages]
    out, model_folder = tmp_path / "out", tmp_path / "model"
    tokenizer(name).save_pretrained(out)

    def run(*words, **wanted):
        steps = [word for stage in stages for word in ("--steps", stage, str(wanted.get(stage, 0)))]
        main.main([name, "--out", str(out), "--processes", "1", *steps, *words], standalone_mode=False)

    one = stages[max(stages.index("long") - 1, 0)]
    run(**{one: 1})
    place = json.loads((out / "place.json").read_text())
    assert (place["stage"], place["step"], place["mean_steps"]) == (one, 1, 1)
    before = load_file(out / f"model.{one}.1.safetensors")
    run("--export", str(model_folder), **{one: 1, "long": 2})
    place = json.loads((out / "place.json").read_text())
    assert (place["stage"], place["step"]) == ("long", 2)
    after = load_file(out / "model.long.2.safetensors")
    assert any(not torch.equal(value, before[key]) for key, value in after.items())

    model = load(model_folder)
    assert model.adapter.family == model.hf.config.model_type
    scene = draw("math", 3)
    question, speech = scene.questions[0], MINIS[name].speech
    events = list(model.stream(scene.image, question.prompt, temperature=0, max_new_tokens=24))
    assert isinstance(events[-1], Done)
    assert any(isinstance(event, Text) for event in events)
    opened = model.prompt_opens_thinking(model.inputs(scene.image, "What?")["input_ids"])
    assert opened == bool(speech.opened)
    text, _ = speech.reply(question, speech.asks)
    *_, done = model.attribute(scene.image, question.prompt, text.removesuffix("<|im_end|>"))
    assert isinstance(done, Done)
    assert done.answer.strip() == question.answer


def test_the_tokenizer_writes_any_text():
    words = tokenizer("qwen3-vl-mini")
    for text in ("Zürich 北京 🦊\n\ttab", "\x00\x7f", "a  b   c"):
        assert words.decode(words.encode(text, add_special_tokens=False)) == text
