"""Packs of questions against each question asked alone, as clients ask it."""

import copy
import itertools

import pytest
import torch
from miniatures import model, tokenizer

from eyeline.scenes import draw
from eyeline.training.manners import Manner
from eyeline.training.mini import embed_still, language_loss, see
from eyeline.training.minis import MINIS, build_image_processor
from eyeline.training.packing import asked, collate
from eyeline.training.replies import weigh
from eyeline.training.speech import COSMOS

ASKED = [
    Manner(),
    Manner(text_first=True),
    Manner("You are a helpful assistant."),
    Manner("Answer in one word.\nThe user sends one image.", text_first=True),
]
CASES = [
    *itertools.product(["qwen3-vl-mini"], ASKED, [False, True]),
    *itertools.product(["glm4v-mini", "mimo-vl-mini"], (ASKED[0], ASKED[3]), [False]),
    ("cosmos-mini", ASKED[1], False),
    ("cosmos-mini", Manner(f"Think first.\n{COSMOS.asks}"), False),
]


@pytest.mark.parametrize(("name", "manner", "is_long"), CASES)
def test_questions_packed_together_cost_what_they_cost_alone_as_a_client_asks_them(name, manner, is_long):
    """Against the chat template and the positions of transformers' own class, in each order and with a system prompt."""
    words, alone, speech = tokenizer(name), model(name), MINIS[name].speech
    scenes = [draw("document", 3, is_long=is_long, slip=is_long), draw("math", 4, is_long=is_long)]
    questions = 2 if is_long else 3
    batch = collate(scenes, words, questions, manners=[manner, ASKED[0]], speech=speech)
    still = copy.deepcopy(alone)
    embed_still(still)
    with torch.no_grad():
        packed, _ = language_loss(still, batch, see(still, batch))
    total, weight = torch.zeros(()), 0.0
    for scene, asked_in in zip(scenes, (manner, ASKED[0]), strict=True):
        pixels = build_image_processor(MINIS[name])(images=[scene.image], return_tensors="pt")
        cells = int(pixels["image_grid_thw"].prod()) // 4
        for question in asked(scene, questions, asked_in):
            turn = [{"type": "image"}, {"type": "text", "text": question.prompt}]
            messages = [{"role": "user", "content": turn[::-1] if asked_in.text_first else turn}]
            if asked_in.system:
                messages.insert(0, {"role": "system", "content": asked_in.system})
            text = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            text = text.replace(speech.image[1], speech.image[1] * cells)
            opening = words.encode(text, add_special_tokens=False)
            told, weights, _ = weigh(question, words, speech, asked_in.system)
            ids = torch.tensor([opening + told])
            with torch.no_grad():
                output = alone(
                    input_ids=ids, mm_token_type_ids=(ids == alone.config.image_token_id).int(), **pixels
                )
            logits = output.logits[0, len(opening) - 1 : -1].log_softmax(-1)
            total -= logits.gather(1, torch.tensor(told)[:, None])[:, 0] @ torch.tensor(weights)
            weight += sum(weights)
    torch.testing.assert_close(packed, total / weight)


def test_only_the_first_question_is_told_at_length():
    scene = next(
        scene
        for scene in (draw("math", seed, wild=True) for seed in range(50))
        if scene.questions != scene.plain
    )
    assert asked(scene, 3) == (scene.questions[0], *scene.plain[1:3])
    assert asked(scene, 0) == ()
    assert asked(scene, 3, Manner(text_first=True)) == asked(scene, 2)
    assert asked(scene, 1, Manner(text_first=True)) == asked(scene, 1)
