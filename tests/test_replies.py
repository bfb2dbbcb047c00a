"""What each token of a reply weighs."""

import itertools

from miniatures import tokenizer

from eyeline.scenes import FAMILIES, draw
from eyeline.training.replies import CONCLUSION_WEIGHT, weigh
from eyeline.training.speech import QWEN3_VL


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
