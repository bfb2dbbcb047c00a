"""An estimator's card in plain words, for whoever looks at it here, and as the README of its repository on the Hub."""

from collections.abc import Mapping
from typing import Any

from eyeline.estimator import Estimator
from eyeline.hub import is_id
from eyeline.version import __version__

LEVELS = {
    "none": "nothing was measured on this model; its weights were learned on others",
    "calibrated": "its sizes were measured on a few of this model's images, and its weights moved as far as that helped",
    "fitted": "its weights and its scale were learned from this model's own traces",
}
MEASURED = {  # on images that it was not fitted on, by their names in cards
    "lds_held_out": ("lds", "LDS", "rank correlation of predicted and measured falls over random halves of the regions"),
    "r2_nats_held_out": ("r2", "R2", "1 - SSE/SST of the falls that single regions cause, nats"),
}  # fmt: skip
LIMITS = (
    "It fits these weights alone: Eyeline refuses it for any other model, a fine-tuned one included, "
    "as far as weights can be read (those of a quantised model cannot).",
    "Its numbers are predictions of what hiding a part of the image would do. Each can be checked by really hiding it.",
    "It was fitted on the images named above. On others it may be worse: measure it with `eyeline evaluate`.",
    "Of a sentence it says what it rests on directly, with the text before it as it is.",
)


def level(card: Mapping[str, Any]) -> str:
    """How much of it was measured on its model: one of LEVELS."""
    return str(card.get("level", "fitted"))


def images(card: Mapping[str, Any]) -> int | None:
    """How many images it was made from."""
    found = card.get("images")
    return sum(found.values()) if isinstance(found, Mapping) else found


def describe(card: Mapping[str, Any]) -> list[str]:
    """What a card says, a sentence each; what is not in it is left out."""
    if "models" in card:
        said = [f"It fits any model; what it knows was learned on {', '.join(card['models'])}."]
    else:
        said = [f"It belongs to {card.get('model', 'a model without a name')}, whose weights have the fingerprint "
                f"{str(card.get('fingerprint', 'unknown'))[:12]}."]  # fmt: skip
    said.append(f"Level: {level(card)}; {LEVELS.get(level(card), 'not known to this version')}.")
    parts = card.get("images")
    if isinstance(parts, Mapping):
        uses = {"fit": "its weights", "scale": "its scale", "cover": "its intervals"}
        told = [
            f"{uses.get(name, 'all of it')} on {count}" for name, count in sorted(parts.items(), reverse=True)
        ]
        said.append(f"It was fitted on {images(card)} images: {', '.join(told)}.")
    said.append(
        f"Regions were made by `{card.get('regions', 'native')}` and hidden by `{card.get('hiding', 'pixels')}`."
    )
    for key, (_, name, meaning) in MEASURED.items():
        if isinstance(card.get(key), int | float):
            said.append(f"On images that it was not fitted on its {name} is {card[key]:.2f} ({meaning}).")
    if card.get("coverage") is not None:
        said.append(f"Its intervals hold {card['coverage']:.0%} of measured effects.".replace("%", " %"))
    elif "coverage" in card:
        said.append("It has no intervals: how far off its sizes are was not measured.")
    if card.get("chances") is not None:
        said.append("It knows earlier text: what answers rest on through the thinking.")
    if "created" in card:
        said.append(f"It was written on {str(card['created'])[:10]}.")
    return said


def readme(estimator: Estimator, repo: str = "OWNER/NAME") -> str:
    """The model card of a repository on the Hub: metadata, what it is, how to use it, its limits."""
    from huggingface_hub import EvalResult, ModelCardData

    card, model = estimator.card, str(estimator.card.get("model", ""))
    measured = {key: told for key, told in MEASURED.items() if isinstance(card.get(key), int | float)}
    results = [
        EvalResult(
            task_type="image-text-to-text", dataset_type="held-out",
            dataset_name="images of its collection that it was not fitted on",
            metric_type=kind, metric_value=card[key], metric_name=name,
        )
        for key, (kind, name, _) in measured.items()
    ]  # fmt: skip
    about = ModelCardData(
        library_name="eyeline", base_model=model if is_id(model) else None,
        tags=["eyeline", "attribution", "interpretability", "vision-language-model"],
        metrics=[kind for kind, *_ in measured.values()] or None,
        model_name=estimator.id if results else None, eval_results=results or None,
    )  # fmt: skip
    lines = "\n".join(f"- {sentence}" for sentence in describe(card))
    limits = "\n".join(f"- {sentence}" for sentence in LIMITS)
    return f"""---
{about.to_yaml().strip()}
---

# {estimator.id}

An estimator of Eyeline {__version__}: while {model or "its model"} writes about an image, it predicts by how
much the log-probability of each sentence would fall if a part of the image were hidden. It holds numbers alone (safetensors
and JSON), nothing that runs.

{lines}

## Use

```python
import eyeline

estimator = eyeline.Estimator.from_pretrained("{repo}")
model = eyeline.load("{model or "THE MODEL"}")
for event in model.stream("photo.jpg", "What is odd here?", estimator=estimator):
    print(event)
```

## Limits

{limits}
"""
