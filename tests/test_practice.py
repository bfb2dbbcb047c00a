"""Practice: what it costs, that its drills are true, and that conversations read once."""

import re
from random import Random

import torch
from miniatures import model, tokenizer
from torch.nn import functional

from eyeline.scenes import draw
from eyeline.training.mini import BEFORE, KNOWS_BEFORE, Heads, practice_loss
from eyeline.training.minis import MINIS
from eyeline.training.practice import LOOKUPS, conversation, drill, recite, reckon, rehearse, stack


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


def test_what_is_reckoned_is_right():
    kinds = set()
    for seed in range(200):
        marked = reckon(Random(seed))
        text = marked.replace("[", "").replace("]", "")
        assert recite(marked, tokenizer())[1].count(0.0) < len(tokenizer().encode(text))
        listed = {name: int(value) for name, value in re.findall(r" is (\w+|[-+=]) with (\d+)\.", text)}
        values = list(listed.values())
        if found := re.search(r"I count (\d+) above (\d+)", text):
            count, limit = map(int, found.groups())
            assert count == sum(value > limit for value in values)
            assert 0 < count < len(values)
            kinds.add("above")
        elif found := re.search(r"The (highest|lowest) has (\d+) for (\S+)\.", text):
            best = {"highest": max, "lowest": min}[found[1]](values)
            assert (int(found[2]), listed[found[3]]) == (best, best)
            kinds.add(found[1])
        elif found := re.search(r"I count (\d+) (\S+)s\.", text):
            read = text.split(": ")[0]
            assert int(found[1]) == len(re.findall(rf" is a {re.escape(found[2])}\.", read))
            kinds.add("alike")
        elif " minus " in text:
            for one, two, three in re.findall(r"(\d+) minus (\d+) is (\d+)\.", text):
                assert int(one) - int(two) == int(three)
            for one, a, two, b in re.findall(r"I see (\S+) with (\d+) and (\S+) with (\d+)\.", text):
                assert (listed[one], listed[two]) == (int(a), int(b))
            kinds.add("gap")
        else:
            sums = re.findall(r"(\d+) plus (\d+) is (\d+)\.", text)
            assert all(int(one) + int(two) == int(three) for one, two, three in sums)
            assert int(sums[-1][2]) == sum(values)
            kinds.add("sum")
    assert kinds == {"above", "highest", "lowest", "alike", "gap", "sum"}


def matching(form, text):
    """What stands in a form's places wherever a sentence of the text has that form."""
    pattern = re.sub(
        r"\{(\w)\}", r"(?P<\1>\\w+|[-+=])", form.replace("[", "\\[").replace("]", "\\]").replace(".", "\\.")
    )
    return [found.groupdict() for found in re.finditer(r"(?:^|(?<=\. ))" + pattern, text)]
