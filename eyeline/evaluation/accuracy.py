"""How often the model's own greedy answers are right, with the image and with the whole image blank."""

import csv
from collections import defaultdict
from itertools import chain
from pathlib import Path

import click
import numpy as np
from PIL import Image

from eyeline.evaluation.answers import is_right
from eyeline.evaluation.metrics import bootstrap
from eyeline.examples import Example, read_examples
from eyeline.images import open_image
from eyeline.model import Model, load
from eyeline.training.collect import answer_of


def answer(model: Model, example: Example, *, blank: bool, max_new_tokens: int) -> str:
    """The greedy answer; a blank image has its mean colour everywhere."""
    picture = open_image(example.image)
    if blank:
        mean = np.asarray(picture).reshape(-1, 3).mean(0).round().astype(int)
        picture = Image.new("RGB", picture.size, tuple(mean.tolist()))
    inputs = model.inputs(picture, example.prompt)
    ids = model.hf.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)[
        0, inputs["input_ids"].shape[1] :
    ]
    return answer_of(model, ids.tolist())


@click.command()
@click.option("--model", "model_id", default="mini", show_default=True)
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, multiple=True, help="Data folder; repeatable."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
@click.option("--max-new-tokens", default=256, show_default=True)
def main(model_id: str, data: tuple[Path, ...], out: Path, max_new_tokens: int) -> None:
    """Score greedy answers on data folders."""
    model = load(model_id)
    scores: dict[str, dict[str, list[float]]] = {
        name: defaultdict(list) for name in ("image", "blank", "prior")
    }
    kinds: dict[str, list[float]] = defaultdict(list)
    for example in chain.from_iterable(map(read_examples, data)):
        right = float(is_right(example, answer(model, example, blank=False, max_new_tokens=max_new_tokens)))
        scores["image"][example.family].append(right)
        scores["blank"][example.family].append(
            float(is_right(example, answer(model, example, blank=True, max_new_tokens=max_new_tokens)))
        )
        if example.prior:
            scores["prior"][example.family].append(right)
        kinds[f"{example.family}/{example.source}"].append(right)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("input", "family", "right", "low", "high", "examples"))
        for name, by_family in scores.items():
            rows = {**{family: {family: values} for family, values in by_family.items()}, "mean": by_family}
            for family, values in rows.items():
                numbers = [f"{value:.4f}" for value in bootstrap(values)]
                table.writerow((name, family, *numbers, sum(map(len, values.values()))))
        for kind, values in sorted(kinds.items()):
            table.writerow(
                ("image", kind, *(f"{value:.4f}" for value in bootstrap({kind: values})), len(values))
            )
    click.echo(out.read_text())


if __name__ == "__main__":
    main()
