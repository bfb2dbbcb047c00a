"""A question about an image with its known answer: the unit of every data folder, and how answers are scored."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from eyeline.errors import DataError
from eyeline.files import decode_text, read_lines

COUNTERFACTUAL = "-counterfactual"  # ends the id of an example's counterpart with another answer
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the image


@dataclass(frozen=True, slots=True)
class Example:
    """One line of `examples.jsonl`. `evidence` holds, for each sentence of `trace`, the boxes it is the first to read."""

    id: str
    image: Path | Image.Image
    prompt: str
    answer: str
    family: str
    source: str  # the kind of scene, or the data set it comes from
    trace: tuple[str, ...] = ()  # sentences of the reference trace, where there is one
    evidence: tuple[tuple[Box, ...], ...] = ()
    prior: bool = False  # what the question leads to expect is not what the image shows


def digest(example: Example) -> str:
    """SHA-256 of all that an example says and shows; of an image that cannot be read, without it."""
    said = asdict(example) | {"image": None}
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    if isinstance(example.image, Image.Image):
        found.update(f"{example.image.mode} {example.image.size}".encode() + example.image.tobytes())
    elif example.image.is_file():
        found.update(example.image.read_bytes())
    return found.hexdigest()


def write_examples(examples: Iterable[Example], folder: Path) -> int:
    """Writes the images and, when all are there, `examples.jsonl`; returns how many."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    count, new = 0, folder / "examples.jsonl.new"
    with new.open("w", encoding="utf-8") as lines:
        for example in examples:
            assert isinstance(example.image, Image.Image), "examples are written from drawn images"
            name = f"images/{example.id}.png"
            example.image.save(folder / name)
            fields = {
                "id": example.id, "image": name, "prompt": example.prompt, "answer": example.answer,
                "family": example.family, "source": example.source, "trace": example.trace,
                "evidence": example.evidence, "prior": example.prior,
            }  # fmt: skip
            lines.write(json.dumps(fields, ensure_ascii=False) + "\n")
            count += 1
    new.replace(folder / "examples.jsonl")
    return count


def read_examples(folder: Path) -> Iterator[Example]:
    """Yields the examples of a data folder. Raises `DataError` where a line is not one."""
    path = Path(folder) / "examples.jsonl"
    if not path.is_file():
        raise DataError(
            f"{folder} is not a data folder: it has no examples.jsonl. Expected one JSON object a line with "
            "id, image, prompt, answer, family and source; `eyeline scenes` writes such a folder."
        )
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    found = False
    for number, line in enumerate(lines, start=1):
        try:
            if not line.strip():
                continue
            fields = json.loads(decode_text(line))
            found = True
            yield Example(
                id=str(fields["id"]),
                image=path.parent / fields["image"],
                prompt=fields["prompt"],
                answer=fields["answer"],
                family=fields["family"],
                source=fields["source"],
                trace=tuple(fields.get("trace", ())),
                evidence=tuple(tuple(tuple(box) for box in boxes) for boxes in fields.get("evidence", ())),
                prior=fields.get("prior", False),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"Line {number} of {path} is not an example ({type(error).__name__}: {error}). "
                "Expected id, image, prompt, answer, family and source."
            ) from error
    if not found:
        raise DataError(f"{path} is empty; expected one example a line, as `eyeline scenes` writes them.")
