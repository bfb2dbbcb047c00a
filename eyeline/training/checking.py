"""A data folder looked through before the first of its images is measured: what is wrong after hours is told at once."""

from collections.abc import Sequence

from eyeline.errors import DataError, ImageError
from eyeline.examples import Example
from eyeline.images import open_image
from eyeline.training.collect import wrong_id

TOLD = 3  # bad examples that a refusal names


def sort_out(examples: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """The examples that can be collected, and of the others a sentence each: an id or an image that cannot be used."""
    good, bad, seen = [], [], set()
    for example in examples:
        try:
            if (wrong := wrong_id(example.id, seen)) is not None:
                raise DataError(f"{wrong}.")
            for image in example.images:
                open_image(image)
        except (DataError, ImageError) as error:
            bad.append(f"{example.id!r}: {error}")
            continue
        seen.add(example.id)
        good.append(example)
    return good, bad


def check(examples: Sequence[Example]) -> None:
    """Raises `DataError` where some cannot be collected, with the first of them."""
    _, bad = sort_out(examples)
    if bad:
        more = "" if len(bad) <= TOLD else f" And {len(bad) - TOLD} more."
        raise DataError(
            f"{len(bad)} of {len(examples)} examples cannot be collected, and none was begun. {' '.join(bad[:TOLD])}{more} "
            "Repair them, or leave them out with --skip-bad."
        )
