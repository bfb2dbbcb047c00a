"""MathVista, MathVerse, OlympiadBench."""

from eyeline.catalogue.entry import LeftOut, PublicSet, Question, Row, text_of
from eyeline.examples import Matching


def _mathvista(row: Row) -> Question:
    answer = text_of(row, "answer")
    if not answer:
        raise LeftOut("without an answer")
    if row["question_type"] == "multi_choice":
        matching = Matching("choice", choices=tuple(row["choices"]))
    elif row["answer_type"] == "list":
        matching = Matching("numbers")
    elif row["answer_type"] in ("integer", "float"):
        decimals = 0 if row["answer_type"] == "integer" else int(row["precision"] or 0)
        matching = Matching("number", decimals=decimals)
    else:
        matching = Matching("text")
    return Question(text_of(row, "query"), answer, matching)


def _mathverse(row: Row) -> Question:
    by_letter = row["question_type"] == "multi-choice"
    return Question(text_of(row, "query_wo"), text_of(row, "answer"), Matching("letter" if by_letter else ""))


def _olympiad(row: Row) -> Question:
    answers = [answer.strip().strip("$") for answer in row["final_answer"] or ()]
    if not answers:
        raise LeftOut("without an answer")
    several = bool(row["is_multiple_answer"])
    prompt = "\n".join(text for text in (text_of(row, "context"), text_of(row, "question")) if text)
    prompt += "\nEnd with: So the final answer is \\boxed{" + (
        "all answers, joined by commas}." if several else "answer}."
    )
    errors = [float(part) for part in str(row["error"] or "0").split(",") if part.strip()]
    return Question(
        prompt, answers[0], Matching("formula", also=tuple(answers[1:]), error=max(errors, default=0.0))
    )


SETS = (
    PublicSet(
        name="mathvista",
        family="math",
        hub=("AI4Math/MathVista",),
        split="testmini",
        rows=1000,
        columns=("decoded_image", "query", "choices", "precision", "answer", "question_type", "answer_type"),
        images=("decoded_image",),
        licence="CC BY-SA 4.0",
        rule="choices by letter or most alike text; numbers cut to whole ones or rounded as the set says",
        read=_mathvista,
        note="Its own scoring has a language model pick the answer out of the text first; here the text is read by rules.",
    ),
    PublicSet(
        name="mathverse",
        family="math",
        hub=("CaraJ/MathVerse-lmmseval",),
        split="testmini",
        configs=("testmini",),
        rows=None,
        columns=("image", "question_type", "query_wo", "answer"),
        images=("image",),
        licence="MIT",
        rule="letter; free answers are not marked",
        read=_mathverse,
        note="Its own scoring is a judge model, which marks free answers; rows without an image are left out.",
    ),
    PublicSet(
        name="olympiadbench",
        family="math",
        hub=("Hothan/OlympiadBench",),
        split="train",
        configs=("OE_MM_maths_en_COMP", "OE_MM_physics_en_COMP"),
        rows=606,
        columns=("question", "final_answer", "context", "image_1", "is_multiple_answer", "error"),
        images=("image_1", "image_2", "image_3", "image_4", "image_5"),
        licence="Apache-2.0",
        rule="formulas worth the same, numbers within the set's error, all of several answers",
        read=_olympiad,
        note="The split called train is its test. Of the open-ended questions with images, those in English from competitions.",
    ),
)
