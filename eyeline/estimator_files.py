"""Estimators in folders: written, read, found, and held against the model that they are for.

Those of a user's own models are kept by the model's fingerprint (estimator_store.py lists them).

An estimator is a folder: `estimator.safetensors` with its numbers and `card.json` with what they mean, how regions were hidden,
and the fingerprint of the model they belong to. Nothing in it is executable.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from eyeline import earlier
from eyeline.data_folder import data_folder
from eyeline.embedded import own_folders
from eyeline.errors import EstimatorError
from eyeline.estimator import OF_NETWORK, SETS, TENSORS, Estimator, Link, Network
from eyeline.events import Level
from eyeline.files import make_folder, read_text, write_files
from eyeline.fingerprint import fingerprint, is_quantised
from eyeline.head_set import KINDS, SET, is_set
from eyeline.hub import HubError, download, is_id
from eyeline.model import Model
from eyeline.through import Chances

FORMAT = 7
ATTENTION = "attention"  # instead of an estimator: shares of attention, which are not effects
CARD, NUMBERS = "card.json", "estimator.safetensors"


def digest(estimator: Estimator) -> str:
    """SHA-256 of an estimator's numbers and of what they are for."""
    found = hashlib.sha256()
    found.update(" ".join((estimator.link, *estimator.kinds)).encode())
    for tensor in _tensors(estimator).values():
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()


def _tensors(estimator: Estimator) -> dict[str, Tensor]:
    """All of an estimator's numbers by the names that they have in its file."""
    tensors = {name: getattr(estimator, name).clone().contiguous() for name in TENSORS}  # files share nothing
    if estimator.network is not None:
        tensors |= {f"network.{name}": getattr(estimator.network, name).contiguous() for name in OF_NETWORK}
    if estimator.text is not None:
        tensors["text"] = estimator.text.clone().contiguous()
    return tensors


def save_estimator(estimator: Estimator, folder: Path) -> None:
    """Writes the estimator's folder; the card comes last, so that a folder with a card is whole. Raises `DataError`."""
    card = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **estimator.card,
        "format": FORMAT,
        "id": estimator.id,
        "kinds": list(estimator.kinds),
        "link": estimator.link,
    }
    text = (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")
    make_folder(folder)
    write_files({folder / NUMBERS: save(_tensors(estimator)), folder / CARD: text})


def read_estimator(folder: Path) -> Estimator:
    """Reads an estimator's folder. Raises `EstimatorError` for what is not one."""
    expected = f"expected a folder that `eyeline fit` wrote, with {CARD} and {NUMBERS}"
    try:
        card = json.loads(read_text(folder / CARD))
        tensors = load_file(folder / NUMBERS)
        if card["format"] != FORMAT:
            raise EstimatorError(
                f"{folder} is an estimator of format {card['format']}; this version of Eyeline reads {FORMAT}: "
                "fit it again."
            )
        if not card["kinds"] or not (set(card["kinds"]) <= set(KINDS) or tuple(card["kinds"]) == SET):
            raise ValueError(
                f"features {card['kinds']}, where some of {', '.join(KINDS)} are expected, or {', '.join(SET)}"
            )
        if card.get("level", "fitted") not in get_args(Level):
            raise ValueError(
                f"the level {card['level']!r}, where one of {', '.join(get_args(Level))} is expected"
            )
        if card["link"] not in get_args(Link):
            raise ValueError(
                f"the link {card['link']!r}, where one of {', '.join(get_args(Link))} is expected"
            )
        if tensors["weights"].ndim != 2 or len(tensors["weights"]) != SETS[card["link"]]:
            raise ValueError("weights in other than the link's number of sets")
        for spread in (tensors["effect_spread"], tensors["contribution_spread"]):
            growing = spread.ndim == 2 and len(spread) > 1 and bool((spread[1:, 0] > spread[:-1, 0]).all())
            if not growing or spread.shape[1] != 3 or not (spread[:, 1] <= spread[:, 2]).all():
                raise ValueError("a spread that is no table of value, low and high with growing values")
        text = tensors.get("text")
        if text is not None and tuple(text.shape) != (len(tensors["weights"]), len(earlier.KINDS)):
            raise ValueError("weights of earlier text in another number than its features")
        if card.get("chances") is not None:
            Chances.of(card["chances"])
        return Estimator(
            str(card["id"]),
            tensors["weights"],
            tensors["effect_spread"],
            tensors["contribution_spread"],
            tuple(card["kinds"]),
            card["link"],
            card,
            _read_network(tensors),
            text,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise EstimatorError(
            f"{folder} is not an estimator ({type(error).__name__}: {error}); {expected}."
        ) from error


def _read_network(tensors: Mapping[str, Tensor]) -> Network | None:
    """The network among the tensors of an estimator's file. Raises `KeyError` for a part of one, `ValueError` for a misfit."""
    if not any(name.startswith("network.") for name in tensors):
        return None
    parts = {name: tensors[f"network.{name}"] for name in OF_NETWORK}
    sets, features = tensors["weights"].shape
    shapes = Network.shapes(sets, len(parts["inward"]), features)
    if {name: tuple(part.shape) for name, part in parts.items()} != shapes:
        raise ValueError("a network of other features or sets than the weights")
    return Network(**parts)


def estimator_for(model: Model, source: str | Path | None = None) -> Estimator | None:
    """The estimator that is given, as a folder or an id on the Hub; else the user's own; else the one in the model's folder.

    Where there is none of these, the general one, which has seen nothing of the model. None for the source `attention`: then
    attention is shown. The user's own is the newest of those kept for the weights' fingerprint.
    Raises `EstimatorError` for one that was fitted for another model.
    """
    if source is None:
        own = [place / "estimator" for place in own_folders(model.name)]
        source = kept_for(model) or next((place for place in own if (place / CARD).is_file()), None)
        if source is None:
            return general_estimator().to(model.device)
    if source == ATTENTION:
        return None
    estimator = find_estimator(source)
    check_model(estimator, model)
    return estimator.to(model.device)


def general_estimator() -> Estimator:
    """The one that fits every model, of heads as a set: it comes with the package."""
    return read_estimator(Path(__file__).parent / "general")


def find_estimator(source: str | Path, revision: str | None = None, token: str | None = None) -> Estimator:
    """That of a folder, or of a repository on the Hub, given as `owner/name`; `revision` and `token` are for these alone.

    A folder of that name goes first. Raises `EstimatorError`.
    """
    path = Path(source).expanduser()
    if path.exists() or not is_id(source):
        if revision is not None:
            raise EstimatorError(
                f"A revision ({revision!r}) is of an estimator on the Hub, and {str(source)!r} is a folder; leave it out."
            )
        return read_estimator(path)
    try:
        return read_estimator(download(str(source), (CARD, NUMBERS), revision, token))
    except HubError as error:
        raise EstimatorError(
            f"{source} is neither a folder here nor an estimator that could be read from the Hugging Face Hub: {error}."
        ) from error


def kept_in() -> Path:
    """The folder of a user's own estimators: FINGERPRINT/ID below it is one."""
    return data_folder() / "estimators"


def kept_for(model: Model) -> Path | None:
    """The folder of the newest one that the user keeps for a model's weights. Raises `EstimatorError` for a damaged one."""
    if not kept_in().is_dir():
        return None
    found = {
        card.parent: read_card(card.parent) for card in (kept_in() / fingerprint(model)).glob(f"*/{CARD}")
    }
    return max(found, key=lambda folder: (str(found[folder].get("created", "")), folder.name), default=None)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of an estimator's folder alone. Raises `EstimatorError`."""
    try:
        card = json.loads(read_text(folder / CARD))
        if not isinstance(card, dict):
            raise ValueError("no card")
        return card
    except (OSError, ValueError) as error:
        raise EstimatorError(
            f"{folder} is not an estimator ({type(error).__name__}: {error}); expected a folder that `eyeline fit` wrote, with "
            f"a {CARD} that is whole: remove it, and fit it again."
        ) from error


def check_model(estimator: Estimator, model: Model) -> None:
    """Raises `EstimatorError` where the estimator belongs to another model; a quantised model cannot be checked."""
    if (
        estimator.level != "none"
        and not is_quantised(model)
        and estimator.card.get("fingerprint") != fingerprint(model)
    ):
        raise EstimatorError(
            f"The estimator {estimator.id!r} was fitted for {estimator.card.get('model')!r}, not for the weights of "
            f"{model.name!r}; fit one with `eyeline collect` and `eyeline fit`, or leave it out."
        )
    heads = model.adapter.text_config(model.hf).num_attention_heads * len(model.adapter.layers(model.hf))
    expected = len(SET) if is_set(estimator.kinds) else heads * len(estimator.kinds)
    if estimator.weights.shape[1] != expected:
        raise EstimatorError(
            f"The estimator {estimator.id!r} holds {estimator.weights.shape[1]} weights where the model has "
            f"{expected} features; fit it again."
        )
