"""Models that ship with Eyeline: one in this package, the other miniatures in `eyeline-minis`, which a checkout has as well."""

import difflib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from eyeline.errors import EyelineError

MODELS = Path(__file__).parent / "models"  # package data
ALIASES = {"mini": "qwen3-vl-mini"}
BESIDE = ("glm4v-mini",)  # in eyeline-minis
NEAR = 0.75  # how alike a name is to that of a model that ships from which that was meant


def folders() -> Iterator[Path]:
    """Of every model that ships and is installed, its folder."""
    places = [MODELS]
    if (beside := find_spec("eyeline_minis")) is not None:
        places += map(Path, beside.submodule_search_locations or ())
    for place in places:
        yield from (config.parent for config in sorted(place.glob("*/config.json")))


def folder_of(name: str) -> Path | None:
    """The folder of the model of this name or alias, where one that ships has it and is installed."""
    name = ALIASES.get(name, name)
    return next((folder for folder in folders() if folder.name == name), None)


def own_folders(name: str) -> tuple[Path, ...]:
    """Where files may lie that belong to a model of this name: that of one that ships, else the model's own folder."""
    embedded = folder_of(name)
    return (Path(name),) if embedded is None else (embedded, Path(name))


def check_installed(name: str) -> None:
    """Raises `EyelineError` for a model that ships and is not installed."""
    name = ALIASES.get(name, name)
    if name in ALIASES.values():
        raise EyelineError(
            f"The weights of the embedded model {name!r} are missing from this installation "
            f"(expected in {MODELS / name}); install eyeline again."
        )
    if name in BESIDE:
        raise EyelineError(
            f"{name!r} is one of the miniatures that are installed apart: pip install eyeline-minis, or in a checkout "
            "pip install ./minis."
        )


def check_name(name: str) -> None:
    """Raises `EyelineError` for a name that is nearly that of a model that ships, and not one of the Hub."""
    near = difflib.get_close_matches(name, (*ALIASES, *ALIASES.values(), *BESIDE), 1, NEAR)
    if near and "/" not in name:
        raise EyelineError(
            f"There is no model {name!r}; nearest: {near[0]!r}, which comes with Eyeline. Models of the Hub have owners, "
            "as in 'Qwen/Qwen3-VL-8B-Thinking'."
        )
