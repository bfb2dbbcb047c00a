"""Does the model read? How often its own greedy answers are right, and what they follow.

With the image as it is, asked in other manners (the text first, after a system prompt, both), with all of it blank, and with
only the evidence blank; on both sides of counterfactual pairs; and when the trace has already read something else than the
image shows. Beside each, how long the traces are.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from eyeline import load
from eyeline.evaluation.answers import is_right
from eyeline.evaluation.command_options import MODEL, TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.examples import COUNTERFACTUAL, Box, Example, read_examples
from eyeline.generation import Written, write
from eyeline.images import open_image
from eyeline.metrics import bootstrap
from eyeline.model import Inputs, Model
from eyeline.teacher_forcing import continued
from eyeline.training.manners import HELPFUL, PLAIN, Manner

PADDED = ("input_ids", "attention_mask", "mm_token_type_ids")  # along the sequence
MANNERS = {
    "text first": Manner(text_first=True),
    "system prompt": Manner(HELPFUL),
    "both": Manner(HELPFUL, text_first=True),
}
Outcome = tuple[float, int]  # 0 or 1, and tokens of the trace
Outcomes = dict[str, dict[str, list[Outcome]]]  # input, family -> one for each example


@dataclass(frozen=True, slots=True)
class Row:
    """A share of right answers, with its 95 % interval over examples."""

    input: str
    family: str  # or "mean" of them, or a family's kind of scene
    right: float
    low: float | None
    high: float | None
    examples: int
    tokens: int  # of the trace, in the median


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to answer: the image, what is asked, how the thinking has already begun, and the manner of asking."""

    image: Image.Image
    prompt: str
    begun: str = ""
    manner: Manner = PLAIN


def blank(picture: Image.Image, boxes: Sequence[Box] | None = None) -> Image.Image:
    """The picture with the boxes, or all of it, in its mean colour."""
    mean = tuple(np.asarray(picture).reshape(-1, 3).mean(0).round().astype(int).tolist())
    blanked = picture.copy()
    for box in [(0, 0, *picture.size)] if boxes is None else boxes:
        blanked.paste(mean, box)
    return blanked


def readings(example: Example) -> str:
    """The reference trace up to the last sentence that reads the image for the first time."""
    last = max(number for number, boxes in enumerate(example.evidence) if boxes)
    return " ".join(example.trace[: last + 1])


def written(model: Model, questions: Sequence[Asked], max_new_tokens: int, batch: int = 16) -> list[Written]:
    """Greedy traces, questions of like length together: alike ones are answered at like length."""
    prepared = [_begin(model, question) for question in questions]
    opened = [
        bool(question.begun) or model.prompt_opens_thinking(inputs["input_ids"])
        for question, inputs in zip(questions, prepared, strict=True)
    ]
    order = sorted(
        range(len(questions)), key=lambda at: (len(questions[at].prompt), prepared[at]["input_ids"].shape[1])
    )
    found: dict[int, Written] = {}
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        inputs = pad([prepared[at] for at in places])
        rows = write(model, inputs, max_new_tokens, [opened[at] for at in places])
        found |= zip(places, rows, strict=True)
    return [found[at] for at in range(len(questions))]


def _begin(model: Model, question: Asked) -> Inputs:
    parts = [{"type": "image"}, {"type": "text", "text": question.prompt}]
    asked = {"role": "user", "content": parts[::-1] if question.manner.text_first else parts}
    system = [{"role": "system", "content": question.manner.system}] if question.manner.system else []
    inputs = model.inputs(question.image, [*system, asked])
    if not question.begun:
        return inputs
    opened = model.prompt_opens_thinking(inputs["input_ids"])
    text = question.begun if opened else f"{model.adapter.thinking_markers[0]}\n{question.begun}"
    return continued(inputs, torch.tensor(model.tokenizer.encode(text, add_special_tokens=False)))


def pad(prompts: Sequence[Inputs]) -> Inputs:
    """Prompts of one question each as one batch, filled up on the left."""
    longest = max(prompt["input_ids"].shape[1] for prompt in prompts)

    def row(prompt: Inputs, name: str) -> torch.Tensor:
        ids = prompt[name]
        return torch.cat([ids.new_zeros(1, longest - ids.shape[1]), ids], dim=1)

    return {
        name: torch.cat([row(prompt, name) if name in PADDED else prompt[name] for prompt in prompts])
        for name in prompts[0]
    }


def evaluate(model: Model, examples: Iterable[Example], max_new_tokens: int) -> tuple[Outcomes, Outcomes]:
    """Answers that are right, by input and family, and by input and kind of scene.

    `image`, the other manners of asking (`MANNERS`), `blank` (all of it) and `evidence` (only that blank); `prior`: those with
    a prior that the image contradicts; `pairs`: both answers of a counterfactual pair; `trace`: the other's readings before
    the image, and the other's answer.
    """
    known = {example.id: example for example in examples}
    alone = [example for name, example in known.items() if not name.endswith(COUNTERFACTUAL)]
    twins = [
        (example, known[example.id + COUNTERFACTUAL])
        for example in alone
        if example.id + COUNTERFACTUAL in known
    ]
    pictures = {name: open_image(example.images[0]) for name, example in known.items()}
    crossed = [*twins, *((other, one) for one, other in twins)]
    asked = {
        "image": [(each, Asked(pictures[each.id], each.prompt)) for each in known.values()],
        **{
            name: [(each, Asked(pictures[each.id], each.prompt, manner=manner)) for each in alone]
            for name, manner in MANNERS.items()
        },
        "blank": [(each, Asked(blank(pictures[each.id]), each.prompt)) for each in alone],
        "evidence": [
            (each, Asked(blank(pictures[each.id], list(chain(*each.evidence))), each.prompt))
            for each in alone
        ],
        "trace": [(other, Asked(pictures[one.id], one.prompt, readings(other))) for one, other in crossed],
    }
    right: dict[str, list[Outcome]] = {}
    for name, cases in asked.items():
        rows = written(model, [question for _, question in cases], max_new_tokens)
        right[name] = [
            (float(is_right(example, row.answer)), len(row.ids))
            for (example, _), row in zip(cases, rows, strict=True)
        ]
    seen = dict(zip(known, right["image"], strict=True))
    found = [
        *(("image", each, seen[each.id]) for each in alone),
        *(
            (name, each, value)
            for name in (*MANNERS, "blank", "evidence")
            for each, value in zip(alone, right[name], strict=True)
        ),
        *(("prior", each, seen[each.id]) for each in alone if each.prior),
        *(("pairs", one, _both(seen[one.id], seen[other.id])) for one, other in twins),
        *(("trace", one, value) for (one, _), value in zip(crossed, right["trace"], strict=True)),
    ]
    by_family: Outcomes = defaultdict(lambda: defaultdict(list))
    by_kind: Outcomes = defaultdict(lambda: defaultdict(list))
    for name, example, value in found:
        by_family[name][example.family].append(value)
        by_kind[name][f"{example.family}/{example.source}"].append(value)
    return by_family, by_kind


def _both(one: Outcome, other: Outcome) -> Outcome:
    return one[0] * other[0], one[1]


@click.command()
@MODEL
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, multiple=True, help="Data folder; repeatable."
)
@TABLE
@click.option("--max-new-tokens", default=512, show_default=True)
def main(model_id: str, data: tuple[Path, ...], out: Path, max_new_tokens: int) -> None:
    """Evaluate greedy answers on data folders."""
    with writing(out, figure=False):
        by_family, by_kind = evaluate(
            load(model_id), chain.from_iterable(map(read_examples, data)), max_new_tokens
        )
        rows = []
        for name, families in by_family.items():
            groups = {**{family: {family: values} for family, values in families.items()}, "mean": families}
            groups |= {kind: {kind: values} for kind, values in sorted(by_kind[name].items())}
            for group, values in groups.items():
                right = {key: [value for value, _ in outcomes] for key, outcomes in values.items()}
                tokens = [count for outcomes in values.values() for _, count in outcomes]
                rows.append(Row(name, group, *bootstrap(right), len(tokens), int(np.median(tokens))))
        write_csv(Row, rows, out)
    click.echo(out.read_text())


if __name__ == "__main__":
    main()
