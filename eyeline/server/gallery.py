"""A dozen drawn scenes to try the page with, every second one photographed; of tuning seeds, so that no test scene is shown."""

import functools
import io
from typing import Any

from eyeline.errors import EyelineError
from eyeline.examples import Example
from eyeline.scenes import FAMILIES, sample
from eyeline.scenes.canvas import check_fonts
from eyeline.server.request_error import not_found

FIRST_SEED = 7_000_123
SCENES = 12


@functools.cache
def _examples() -> dict[str, Example]:
    """By id; drawn when they are first asked for."""
    families = list(FAMILIES)
    drawn = [
        sample(families[number % len(families)], FIRST_SEED + number, wild=number % 2 == 1)
        for number in range(SCENES)
    ]
    return {example.id: example for example in drawn}


def notice() -> str | None:
    """Why there are no scenes, where there are none."""
    try:
        check_fonts()
    except EyelineError as error:
        return str(error)
    return None


def scenes() -> dict[str, dict[str, Any]]:
    """Each scene's entry in the list, by id."""
    return {
        name: {
            "id": name,
            "family": example.family,
            "prompt": example.prompt,
            "image": f"/v1/gallery/{name}.png",
        }
        for name, example in _listed().items()
    }


def _listed() -> dict[str, Example]:
    return {} if notice() else _examples()


@functools.lru_cache(maxsize=SCENES)
def draw_png(scene: str) -> bytes:
    """Raises a `RequestError` for a scene that is not in the list."""
    if scene not in _listed():
        raise not_found("such scene")
    image: Any = _listed()[scene].image
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return png.getvalue()
