"""A question and its reply as token ids, and what each of the reply weighs in the loss."""

import numpy as np

from eyeline.scenes.question import Question
from eyeline.training.speech import QWEN3_VL, Speech

CONCLUSION_WEIGHT = 3.0  # of tokens that follow from what was read, against 1 for the reading itself


def weigh(
    question: Question, tokenizer, speech: Speech = QWEN3_VL, system: str = ""
) -> tuple[list[int], list[float], list[float]]:
    """The reply's token ids, and their weights in the loss with the image in sight and in practice, where it is not.

    A value that the trace misreads has no weight: nothing teaches to misread. What puts it right weighs as a conclusion.
    """
    told, start = speech.reply(question, system)
    encoded = tokenizer(told, add_special_tokens=False, return_offsets_mapping=True)
    seen = np.full(len(told), CONCLUSION_WEIGHT)  # of each character
    unseen = seen.copy()
    slip, at = question.slip, start or 0
    for number, (text, boxes) in enumerate(() if start is None else question.sentences):
        if boxes:
            seen[at : at + len(text)] = CONCLUSION_WEIGHT if slip and number in slip.mended else 1.0
            unseen[at : at + len(text)] = 0.0
        if slip and number == slip.sentence:
            seen[at + slip.start : at + slip.end] = 0.0
        at += len(text) + 1
    spans = [(min(start, stop - 1), stop) for start, stop in encoded["offset_mapping"]]
    return (
        encoded["input_ids"],
        [float(seen[start:stop].min()) for start, stop in spans],
        [float(unseen[start:stop].min()) for start, stop in spans],
    )


def ask(question: Question, tokenizer, speech: Speech = QWEN3_VL) -> list[int]:
    """Token ids of the question and of what opens the reply."""
    return tokenizer.encode(question.prompt + speech.opening, add_special_tokens=False)
