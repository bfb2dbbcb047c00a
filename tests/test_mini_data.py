"""The embedded model's training data against what the model will really see."""

import copy
import functools
import itertools
import re
import tempfile
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from eyeline.scenes import FAMILIES, draw
from eyeline.training.mini import (
    BEFORE,
    KNOWS_BEFORE,
    Heads,
    Muon,
    embed_still,
    language_loss,
    practice_loss,
    see,
)
from eyeline.training.mini_data import (
    CONCLUSION_WEIGHT,
    DRAWN,
    HARD,
    HEADS,
    LOOKUPS,
    Batches,
    Manner,
    asked,
    collate,
    conversation,
    dense_labels,
    drill,
    patches,
    recite,
    rehearse,
    some_manner,
    soup,
    stack,
    weigh,
)
from eyeline.training.minis import MINIS, build_image_processor, build_tokenizer
from eyeline.training.speech import COSMOS, QWEN3_VL

MINI = "qwen3-vl-mini"


@functools.cache
def tokenizer(name=MINI):
    return build_tokenizer(MINIS[name])


@functools.cache
def model(name=MINI):
    torch.manual_seed(0)
    return MINIS[name].build(tokenizer(name)).eval()


@pytest.mark.parametrize("name", MINIS)
@pytest.mark.parametrize("family", FAMILIES)
def test_patches_are_those_of_the_image_processor(family, name):
    scene = draw(family, 11)
    processed = build_image_processor(MINIS[name])(images=[scene.image], return_tensors="pt")
    ours = torch.from_numpy(patches(np.asarray(scene.image))).float() / 127.5 - 1
    torch.testing.assert_close(ours, processed["pixel_values"], atol=1e-6, rtol=0)


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


def test_a_misread_value_has_no_weight_and_what_puts_it_right_weighs_as_a_conclusion():
    for family, seed in itertools.product(FAMILIES, range(12)):
        question = draw(family, seed, is_long=True, slip=True).questions[0]
        slip = question.slip
        told, in_sight, from_memory = weigh(question, tokenizer())
        text, _ = QWEN3_VL.reply(question)
        before = len(" ".join(each for each, _ in question.sentences[: slip.sentence])) + 1
        wrong = text[before + slip.start : before + slip.end]
        unlearned = [
            token
            for token, seen, unseen in zip(told, in_sight, from_memory, strict=True)
            if not seen and not unseen
        ]
        assert tokenizer().decode(unlearned).strip() == wrong
        assert wrong in question.sentences[slip.mended[-1]][0]  # "not 11"
        for number in slip.mended:
            start = len(" ".join(each for each, _ in question.sentences[:number])) + 1
            tokens = len(tokenizer().encode(text[: start - 1], add_special_tokens=False))
            length = len(tokenizer().encode(" " + question.sentences[number][0], add_special_tokens=False))
            assert set(in_sight[tokens : tokens + length]) == {CONCLUSION_WEIGHT}


def test_clients_ask_in_every_order_with_and_without_a_system_prompt():
    manners = [some_manner(Random(seed)) for seed in range(300)]
    orders = Counter((each.text_first, bool(each.system)) for each in manners)
    assert min(orders.values()) > 40
    assert len({each.system for each in manners}) > 50
    assert sum(each.system == "You are a helpful assistant." for each in manners) > 30


def test_long_scenes_come_at_length_and_part_by_part_and_a_minority_first_misreads():
    batches = Batches(tokenizer(), 0, 2, 3, 0.0, 0, 1, long=1.0)
    scenes = [batches.scene(number) for number in range(300)]
    assert {scene.family for scene in scenes} == set(FAMILIES)
    whole = [scene for scene in scenes if len(scene.questions) == 1]
    slips = [scene for scene in whole if scene.questions[0].slip]
    assert 0.2 < len(slips) / len(whole) < 0.5
    assert all(not question.slip for scene in scenes for question in scene.questions[1:])
    assert any(len(scene.questions) > 2 for scene in scenes)
    few = Batches(tokenizer(), 0, 2, 3, 0.0, 0, 1, long=0.3)
    share = sum(few.scene(number).kind.startswith("long") for number in range(300)) / 300
    assert 0.2 < share < 0.4


def test_two_processes_take_batches_of_like_length_at_a_time():
    lengths = []
    for index in (0, 1):
        batches = iter(Batches(tokenizer(), 0, 3, 3, 0.0, index, 2, long=0.4, manners=True))
        lengths.append([next(batches).ids.shape[1] for _ in range(16)])
    apart = np.abs(np.diff(lengths, axis=0)).mean()
    crossed = np.abs(np.array(lengths[0])[:, None] - np.array(lengths[1])).mean()
    assert apart < 0.6 * crossed


def test_practice_costs_what_its_rows_cost_alone_and_teaches_what_stood_before():
    scene = draw("math", 4)
    rows = [rehearse(conversation(scene), tokenizer()), recite(drill(Random(0)), tokenizer())]
    total, weight = torch.zeros(()), 0.0
    for told, weights in rows:
        ids = torch.tensor([told])
        positions = (13 + torch.arange(len(told))).expand(3, 1, -1)
        with torch.no_grad():
            logits = model()(input_ids=ids, position_ids=positions).logits[0, :-1].log_softmax(-1)
        total -= logits.gather(1, ids[0, 1:, None])[:, 0] @ torch.tensor(weights[1:])
        weight += sum(weights)
    practice = stack(rows, after=13)
    heads = Heads(256, len(tokenizer()))
    with torch.no_grad():
        together, _, unknown = practice_loss(model(), heads, practice)
        hidden = (
            model()
            .model.language_model(
                input_ids=practice.ids, position_ids=practice.positions, output_hidden_states=True
            )
            .hidden_states[KNOWS_BEFORE]
        )
        losses = []
        for row in range(2):
            for at in range(BEFORE, practice.ids.shape[1], 4):
                known = heads.before(functional.rms_norm(hidden[row, at], (256,))).view(BEFORE, -1)
                losses += [
                    functional.cross_entropy(known[b], practice.ids[row, at - 1 - b]) for b in range(BEFORE)
                ]
    torch.testing.assert_close(together, total / weight)
    torch.testing.assert_close(unknown, torch.stack(losses).mean())


def test_a_conversation_reads_once_and_is_written_as_the_chat_template_does():
    scene = draw("document", 5)
    first, *others = conversation(scene)
    assert others
    read = {text for text, boxes in first.sentences if boxes}
    assert all(not boxes for other in others for _, boxes in other.sentences)
    for other in others:
        whole = next(each for each in scene.questions if each.prompt == other.prompt)
        assert {text for text, boxes in whole.sentences if boxes} <= read
    for name in ("qwen3-vl-mini", "glm4v-mini"):
        words, speech = tokenizer(name), MINIS[name].speech
        messages = []
        for question in (first, *others):
            told, _ = speech.reply(question)
            content = (speech.opened + told).removesuffix("<|im_end|>")
            messages += [{"role": "user", "content": question.prompt}]
            messages += [{"role": "assistant", "content": content}]
        text = words.apply_chat_template(messages, tokenize=False)
        ids, _ = rehearse((first, *others), words, speech)
        assert words.decode(ids) == text.removeprefix(speech.head("")).removesuffix("\n")


def test_what_a_drill_asks_follows_from_what_it_says():
    kinds = set()
    for seed in range(300):
        text = drill(Random(seed))
        ids, weights = recite(text, tokenizer())
        pieces = re.split(r"[][]", text)
        assert tokenizer().decode(ids) == "".join(pieces)
        asked = [token for token, weight in zip(ids, weights, strict=True) if weight]
        assert tokenizer().decode(asked).replace(" ", "") == "".join(pieces[1::2]).replace(" ", "")
        sums = re.findall(r"(\d+) (plus|minus|times) (\d+) is \[(\d+)\]", text)
        if sums:
            signs = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}
            assert all(signs[sign](int(one), int(two)) == int(three) for one, sign, two, three in sums)
            kinds.add("sums")
        elif text.count("[") == 1:
            once, again = "".join(pieces).removesuffix(".").split(". ")
            assert once == again
            kinds.add("repeating")
        else:
            reading = next(reading for reading, *_ in LOOKUPS if matching(reading, text))
            for forms in (forms for first, *forms in LOOKUPS if first == reading):
                known = [tuple(sorted(each.items())) for each in matching(reading, text.split("[")[0])]
                said = [each for form in forms for each in matching(form, text)]
                if len(said) == len(pieces) // 2:
                    assert all(any(set(each.items()) <= set(one) for one in known) for each in said)
                    kinds.add(reading)
    assert kinds == {"sums", "repeating", *(reading for reading, *_ in LOOKUPS)}


def matching(form, text):
    """What stands in a form's places wherever a sentence of the text has that form."""
    pattern = re.sub(
        r"\{(\w)\}", r"(?P<\1>\\w+|[-+=])", form.replace("[", "\\[").replace("]", "\\]").replace(".", "\\.")
    )
    return [found.groupdict() for found in re.finditer(r"(?:^|(?<=\. ))" + pattern, text)]


def test_what_follows_from_the_reading_weighs_more_and_alone_counts_in_practice():
    question = next(each for each in draw("document", 3).questions if not each.sentences[-1][1])
    told, in_sight, from_memory = weigh(question, tokenizer())
    assert told == tokenizer().encode(QWEN3_VL.reply(question)[0], add_special_tokens=False)
    read = " ".join(text for text, boxes in question.sentences if boxes)
    practised = tokenizer().decode([token for token, weight in zip(told, from_memory, strict=True) if weight])
    assert practised == QWEN3_VL.reply(question)[0].removeprefix(read)
    assert {(1.0, 0.0), (CONCLUSION_WEIGHT, CONCLUSION_WEIGHT)} == set(
        zip(in_sight, from_memory, strict=True)
    )


def test_muon_steps_as_torchs_own_does():
    rng = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(3, 8, 12, generator=rng)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
        steps = (
            Muon([ours], lr=0.05),
            torch.optim.Muon(
                [theirs], lr=0.05, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            ),
        )
        for parameter, optimizer in zip((ours, theirs), steps, strict=True):
            for gradient in gradients:
                parameter.grad = gradient.clone()
                optimizer.step()
        dist.destroy_process_group()
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # bfloat16


@pytest.mark.parametrize("name", ["qwen3-vl-mini", "glm4v-mini", "mimo-vl-mini"])
def test_embedding_and_merging_as_products_of_matrices_change_nothing(name):
    fresh = copy.deepcopy(model(name))
    batch = collate([draw("math", 1), draw("code", 1)], tokenizer(), 1)
    with torch.no_grad():
        expected = torch.cat(see(fresh, batch).pooler_output)
        embed_still(fresh)
        torch.testing.assert_close(torch.cat(see(fresh, batch).pooler_output), expected, atol=1e-5, rtol=1e-4)


def test_dense_labels_name_what_a_token_shows():
    scene = soup(5)
    labels = dense_labels(scene)
    assert labels.shape == (64, len(HEADS))
    assert (labels < np.array(list(HEADS.values()))).all()
    number = next(item for item in scene.canvas.items if item.word.isdigit() and len(item.word) == 2)
    left, top, right, bottom = number.box
    cell = labels.reshape(8, 8, -1)[(top + bottom) // 64, (left + right) // 64]
    assert (cell[5], cell[6]) == (int(number.word[0]) + 1, int(number.word[1]) + 1)


def test_two_processes_draw_different_scenes_and_together_all():
    drawn = []
    for index in (0, 1):
        batches = iter(Batches(tokenizer(), 0, 2, 1, 1.0, index, 2))
        drawn.append([tuple(next(batches).ids.flatten().tolist()) for _ in range(4)])
    assert not set(drawn[0]) & set(drawn[1])


def test_the_tokenizer_writes_any_text():
    for text in ("Zürich 北京 🦊\n\ttab", "\x00\x7f", "a  b   c"):
        assert tokenizer().decode(tokenizer().encode(text, add_special_tokens=False)) == text


def test_every_number_draws_a_scene_of_its_own_and_all_families_come_up():
    batches = Batches(tokenizer(), 0, 2, 3, 1.0, 0, 1)
    drawn = [batches.scene(number) for number in range(60)]
    assert len({scene.image.tobytes() for scene in drawn}) == 60
    assert {scene.family for scene in drawn} == set(FAMILIES)
    without_questions = Batches(tokenizer(), 0, 2, 0, 0.0, 0, 1)
    assert {without_questions.scene(number).family for number in range(60)} == {*FAMILIES, "soup"}


def test_hard_kinds_come_up_more_often_than_others():
    batches = Batches(tokenizer(), 0, 2, 3, 1.0, 0, 1)
    counts = Counter(batches.scene(number).kind for number in range(600))
    assert set(counts) == {kind for kinds in FAMILIES.values() for kind in kinds}
    hard = [kind in HARD for kind in counts.elements()]
    evenly = [
        kind in HARD
        for family in DRAWN
        for kind in FAMILIES[family]
        for _ in range(60 // len(FAMILIES[family]))
    ]
    assert sum(hard) / len(hard) > sum(evenly) / len(evenly) + 0.05


def test_practice_comes_from_all_families_over_the_batches(monkeypatch):
    families = []
    monkeypatch.setattr(
        "eyeline.training.mini_data.draw", lambda family, seed: families.append(family) or draw(family, seed)
    )
    batches = Batches(tokenizer(), 0, 6, 3, 1.0, 0, 1)
    for number in range(6):
        batches.exercises(number)
    assert set(families) == set(FAMILIES)


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
