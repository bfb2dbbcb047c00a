"""How a trace tells its readings and conclusions: at once, step by step, or with a second and a third look."""

from dataclasses import replace
from random import Random

from eyeline.scenes.question import Question, Sentence

# What the question asks for, and how often.
TELLINGS = {
    "": 0.6,
    "Think step by step.": 0.12,
    "Check your answer.": 0.14,
    "Think step by step and check your answer.": 0.14,
}
BEGIN = ("First I read the picture.", "Let me read the picture first.", "I read everything first.")
TOGETHER = ("Now I put it together.", "That is all there is.", "Now to the question.")
DONE = ("So that is the answer.", "That answers the question.", "This is what was asked.")
AGAIN = ("Wait, let me look again.", "Wait, let me check this.", "Let me read it once more.")
SAME = ("It is the same as before.", "This is right.", "Yes, it is the same.")
COMPARE = ("Let me compare both readings.", "Now I compare the two.", "Let me double-check each one.")
SEEN_AGAIN = ("Again, {}", "Yes, {}", "Here {}")
SEEN_TWICE = ("{} both times.", "{} as before.", "{} each time.")


def tell(question: Question, rng: Random) -> Question:
    """The question with one way of telling asked for, and its trace told so."""
    wish = rng.choices(list(TELLINGS), list(TELLINGS.values()))[0]
    if not wish:
        return question
    stepwise, checked = "step" in wish, "heck" in wish
    readings = [sentence for sentence in question.sentences if sentence[1]]
    conclusions = [sentence for sentence in question.sentences if not sentence[1]]
    told: list[Sentence] = list(question.sentences)
    if stepwise:
        told = [_say(BEGIN, rng), *readings, _say(TOGETHER, rng), *conclusions]
    if checked:
        seen = rng.choice(SEEN_AGAIN)
        told += [_say(AGAIN, rng), *((seen.format(_inside(text)), boxes) for text, boxes in readings)]
    if stepwise and checked:
        seen = rng.choice(SEEN_TWICE)
        told += [
            _say(COMPARE, rng),
            *((seen.format(text.removesuffix(".")), boxes) for text, boxes in readings),
        ]
    if checked:
        told += [_say(SAME, rng), *conclusions]
    if stepwise:
        told.append(_say(DONE, rng))
    return replace(question, prompt=f"{question.prompt} {wish}", sentences=tuple(told))


def _say(phrases: tuple[str, ...], rng: Random) -> Sentence:
    return rng.choice(phrases), ()


def _inside(text: str) -> str:
    return text[0].lower() + text[1:]
