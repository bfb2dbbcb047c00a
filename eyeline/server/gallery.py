"""A dozen drawn scenes to try the page with; of tuning seeds, so that no test scene is shown."""

import functools
import io
from typing import Any

from eyeline.scenes import FAMILIES, sample
from eyeline.server.request_error import not_found

FIRST_SEED = 7_000_123
SCENES = 12


@functools.cache
def scenes() -> dict[str, dict[str, Any]]:
    """Each scene's entry in the list, by id; drawn when the list is first asked for."""
    entries = {}
    for number in range(SCENES):
        family = list(FAMILIES)[number % len(FAMILIES)]
        example = sample(family, FIRST_SEED + number)
        entries[example.id] = {
            "id": example.id,
            "family": family,
            "prompt": example.prompt,
            "image": f"/v1/gallery/{example.id}.png",
        }
    return entries


@functools.lru_cache(maxsize=SCENES)
def draw_png(scene: str) -> bytes:
    """Raises a `RequestError` for a scene that is not in the list."""
    if scene not in scenes():
        raise not_found("such scene")
    family, _, seed = scene.rpartition("-")
    image: Any = sample(family, int(seed)).image
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return png.getvalue()
