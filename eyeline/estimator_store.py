"""The estimators that a user keeps: listed, looked at, removed, put elsewhere. Which is used is estimator_files.py's to say."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyeline.errors import EstimatorError
from eyeline.estimator import Estimator
from eyeline.estimator_card import readme
from eyeline.estimator_files import CARD, kept_in, read_card, read_estimator, save_estimator
from eyeline.files import make_folder, write_files

PLAIN = re.compile(r"\w[\w.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Kept:
    """One estimator that is kept."""

    folder: Path
    card: Mapping[str, Any] | None  # None where it is damaged
    used: bool  # the newest for its model's weights: the one that is used where none is given

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def fingerprint(self) -> str:
        return self.folder.parent.name


def place_of(fingerprint: str, name: str) -> Path:
    """The folder that an estimator of a model's weights is kept in by its id. Raises `EstimatorError` where it cannot be."""
    if not PLAIN.fullmatch(name):
        raise EstimatorError(
            f"{name!r} cannot be the id of an estimator that is kept; expected letters, digits, dots and dashes:"
            " give another --name."
        )
    if not re.fullmatch("[0-9a-f]+", fingerprint):
        raise EstimatorError(
            f"{fingerprint!r} is no fingerprint of a model's weights; give --out to write the estimator elsewhere."
        )
    folder = kept_in() / fingerprint / name
    if (folder / CARD).exists():
        raise EstimatorError(
            f"An estimator {name!r} of that model is kept already; give another --name, or remove it first: "
            f"eyeline estimators remove {name}."
        )
    return folder


def keep(estimator: Estimator) -> Path:
    """Keeps an estimator for its model; from now on it is the one that is used there. Raises `EstimatorError` or `DataError`."""
    folder = place_of(str(estimator.card.get("fingerprint")), estimator.id)
    save_estimator(estimator, folder)
    return folder


def kept() -> list[Kept]:
    """All that are kept, by model, the newest of each first."""
    cards: dict[Path, Mapping[str, Any] | None] = {}
    for path in kept_in().glob(f"*/*/{CARD}"):
        try:
            cards[path.parent] = read_card(path.parent)
        except EstimatorError:
            cards[path.parent] = None

    def age(folder: Path) -> tuple[str, str]:
        return str((cards[folder] or {}).get("created", "")), folder.name

    order = sorted(sorted(cards, key=age, reverse=True), key=lambda folder: folder.parent.name)
    newest = {folder.parent: folder for folder in reversed(order) if cards[folder] is not None}
    return [Kept(folder, cards[folder], newest.get(folder.parent) == folder) for folder in order]


def find_kept(name: str) -> Kept:
    """The one with an id; where several models have one of that id, FINGERPRINT/ID, of which the first digits do.

    Raises `EstimatorError`.
    """
    start, _, own = name.rpartition("/")
    found = [each for each in kept() if each.id == own and each.fingerprint.startswith(start)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{each.fingerprint[:8]}/{each.id}" for each in found)
        raise EstimatorError(f"Several models have an estimator {name!r} here: give one of {names}.")
    there = ", ".join(dict.fromkeys(each.id for each in kept())) or "none"
    raise EstimatorError(f"There is no estimator {name!r} in {kept_in()}; there are: {there}.")


def remove(one: Kept) -> None:
    """Removes it; its card goes first, so that what is left where this is cut short is no estimator."""
    try:
        (one.folder / CARD).unlink()
        shutil.rmtree(one.folder)
    except OSError as error:
        raise EstimatorError(f"{str(one.folder)!r} could not be removed ({error.strerror}).") from error


def export(one: Kept, folder: Path) -> None:
    """Writes it to another folder, with a README. Raises `EstimatorError` for a damaged one, `DataError`."""
    save_with_readme(read_estimator(one.folder), folder)


def save_with_readme(estimator: Estimator, folder: Path, repo: str = "OWNER/NAME") -> None:
    """Writes an estimator's folder with the model card that the Hub shows in a repository. Raises `DataError`."""
    make_folder(folder)
    write_files({folder / "README.md": readme(estimator, repo).encode("utf-8", "replace")})
    save_estimator(estimator, folder)
