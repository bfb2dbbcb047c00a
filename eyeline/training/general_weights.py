"""General weights: of heads as a set, learned over the collections of several models at once, for models that none of them is.

Nothing in them belongs to one model (head_set.py, earlier.py), so an estimator of a model that was never measured begins here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.head_set import SET
from eyeline.training import traces as text
from eyeline.training.collect import Collected, place
from eyeline.training.fit import FEWEST_IMAGES, binned, effect_pairs, scale, with_features
from eyeline.training.weights import FitSettings, learn_weights, split, training_data

STEPS = 400


def learn_general(
    runs: Sequence[tuple[Sequence[Collected], dict[str, Any]]],
    name: str,
    traced: Sequence[Sequence[text.Traced]] = (),
) -> Estimator:
    """One estimator from the collections of several models, as many images of each: level `none`.

    With traces of some models, with games by weights of that model alone, it knows earlier text as well, from as many of each.
    Its spreads are the shapes that calibration begins with. Raises `DataError` for too few images, or runs that differ in how
    regions were hidden.
    """
    ways = {run["settings"]["hiding"] for _, run in runs}
    if len(ways) != 1:
        raise DataError(
            f"The collections hide regions by {' and '.join(sorted(ways)) or 'nothing'}; expected one way in all."
        )
    fewest = min(len(collected) for collected, _ in runs)
    if fewest < FEWEST_IMAGES:
        raise DataError(f"{fewest} images of a model are too few; expected {FEWEST_IMAGES} of each at least.")
    parts = [
        {part: images[: fewest * len(images) // len(collected)] for part, images in split(collected).items()}
        for collected, run in ((with_features(collected, run, SET), run) for collected, run in runs)
    ]
    data = training_data([one for part in parts for one in part["fit"]], SET)
    learned, _ = learn_weights(data, FitSettings(kinds=SET, hidden=0, steps=STEPS))
    scaled = scale([one for part in parts for one in part["scale"]], replace(learned, id=name))
    shape = binned(*effect_pairs([one for part in parts for one in part["cover"]], scaled)[:2])
    models = [f"{Path(run['model']).name} ({run['fingerprint'][:12]})" for _, run in runs]
    card = {
        "models": models, "hiding": ways.pop(), "regions": "native", "level": "none",
        "images": {"general": fewest * len(runs)}, "unit": "relative", "coverage": None, "version": runs[0][1]["version"],
    }  # fmt: skip
    found = replace(scaled, card=card, effect_spread=shape, contribution_spread=shape)
    if not traced:
        return found
    fewest = min(map(len, traced))
    return text.fit(
        [one for each in traced for one in sorted(each, key=lambda one: place(one.id))[:fewest]], found
    )
