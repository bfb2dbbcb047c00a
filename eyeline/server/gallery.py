"""Twenty drawn scenes to try the page with, half of them photographed, which the models that ship read and answer rightly.

They are of tuning seeds, so that no test scene is shown. Of one more what is asked about was erased: both models answer all the
same, and the first one is caught (grounding.py).
"""

import functools
import io
from dataclasses import replace
from typing import Any

from PIL import Image, ImageDraw

from eyeline.errors import EyelineError
from eyeline.examples import Example
from eyeline.scenes import sample
from eyeline.scenes.canvas import check_fonts
from eyeline.server.request_error import not_found

SCENES = (  # family, seed, whether it is photographed
    ("math", 7_000_145, False),
    ("science", 7_000_146, False),
    ("document", 7_000_138, False),
    ("code", 7_000_142, False),
    ("general", 7_000_143, False),
    ("math", 7_000_141, True),
    ("science", 7_000_133, True),
    ("document", 7_000_142, True),
    ("code", 7_000_136, True),
    ("general", 7_000_123, True),
    ("math", 7_000_128, False),
    ("science", 7_000_148, False),
    ("document", 7_000_146, False),
    ("code", 7_000_135, False),
    ("general", 7_000_147, False),
    ("math", 7_000_137, True),
    ("science", 7_000_145, True),
    ("document", 7_000_145, True),
    ("code", 7_000_138, True),
    ("general", 7_000_142, True),
)
ERASED, WHAT = (
    ("document", 7_000_318),
    "The shop’s name was erased. A model that names one all the same makes it up: is it caught?",
)


@functools.cache
def _examples() -> dict[str, Example]:
    """By id; drawn when they are first asked for."""
    drawn = [sample(family, seed, wild=photographed) for family, seed, photographed in SCENES]
    drawn.append(erased(sample(*ERASED)))
    return {example.id: example for example in drawn}


def erased(example: Example) -> Example:
    """The scene without what is to be read in it; each place in the colour beside it."""
    assert isinstance(example.image, Image.Image), "it was drawn"
    picture = example.image.copy()
    draw = ImageDraw.Draw(picture)
    for left, top, right, bottom in (box for boxes in example.evidence for box in boxes):
        beside = picture.getpixel((max(0, left - 3), max(0, top - 3)))
        draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=beside)
    return replace(example, id=f"erased-{example.id}", image=picture)


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
            "note": WHAT if name.startswith("erased") else None,
        }
        for name, example in _listed().items()
    }


def _listed() -> dict[str, Example]:
    return {} if notice() else _examples()


@functools.lru_cache(maxsize=len(SCENES) + 1)
def draw_png(scene: str) -> bytes:
    """Raises a `RequestError` for a scene that is not in the list."""
    if scene not in _listed():
        raise not_found("such scene")
    image: Any = _listed()[scene].image
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return png.getvalue()
