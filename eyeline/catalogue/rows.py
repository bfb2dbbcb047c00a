"""Rows of a public set, from the Hub or a folder, by the library `datasets`; images stay as they are stored."""

import re
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from eyeline.catalogue.entry import PublicSet, Row
from eyeline.errors import DataError, EyelineError

SPLITS = ("train", "test", "val", "validation", "dev", "testmini", "testdev")  # that file names tell
SAME = {"val": ("val", "validation"), "validation": ("validation", "val")}


def rows_of(found: PublicSet, folder: Path | None, few: bool = False) -> Iterator[tuple[str, Row]]:
    """Each row with a name of its own; `few`: so few are wanted that no set is to be downloaded for them.

    Raises `DataError` for what is not there, and for other columns.
    """
    if found.released is not None:
        if folder is None:
            raise DataError(
                f"{found.name} is not on the Hub: unpack its release and give --folder. {found.note}"
            )
        yield from ((str(number), row) for number, row in enumerate(_guarded(found, found.released(folder))))
        return
    shown = _pictures(found, folder, few)
    for config in found.configs:
        dataset = _open(found, config, folder, few)
        prefix = f"{config}-" if len(found.configs) > 1 else ""
        for number, stored in enumerate(_guarded(found, dataset)):
            row = _renamed(found, stored)
            if shown is not None:
                row["image"] = shown.get(row[found.pictures[1]]) if found.pictures else None
            if not number:
                _check(found, row)
            yield f"{prefix}{number}", row


def count_rows(found: PublicSet, folder: Path) -> int:
    """How many rows a folder holds; of Parquet from its headers alone."""
    if found.released is not None:
        return sum(1 for _ in rows_of(found, folder))
    count = 0
    for config in found.configs:
        if files := _files(found, config, folder, "parquet"):
            from pyarrow.parquet import ParquetFile

            count += sum(ParquetFile(path).metadata.num_rows for path in files)
        else:
            count += sum(1 for _ in _open(found, config, folder))
    return count


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise EyelineError("Public sets need the package datasets: pip install 'eyeline[data]'.") from error
    return datasets


def _pictures(found: PublicSet, folder: Path | None, few: bool) -> dict[str, Any] | None:
    """Images by id, of a set that keeps them in rows of their own."""
    if found.pictures is None:
        return None
    return {row["id"]: row["image"] for row in _guarded(found, _open(found, found.pictures[0], folder, few))}


def _open(found: PublicSet, config: str | None, folder: Path | None, few: bool = False) -> Any:
    dataset = _from_hub(found, config, few) if folder is None else _from_folder(found, config, folder)
    image = _library().Image(decode=False)
    stored = [name for name, kind in (dataset.features or {}).items() if isinstance(kind, type(image))]
    for name in stored:
        dataset = dataset.cast_column(name, image)
    return dataset


def _from_hub(found: PublicSet, config: str | None, few: bool) -> Any:
    load = _library().load_dataset
    reasons: list[Exception] = []
    ways = (
        (True, False) if few and not found.large else (found.large,)
    )  # what is kept already needs no network
    for name, streaming in product(found.hub, ways):
        try:
            return load(name, config, split=found.split, streaming=streaming)
        except Exception as error:  # of the network, the Hub, or the set: each library below raises its own
            reasons.append(error)
    said = " ".join(str(reasons[0]).split())[:200].rstrip(".")
    raise DataError(
        f"{found.name} cannot be had from the Hub as {' or '.join(found.hub)} ({said}); check the network and what its page "
        "asks for, or give --folder with a copy."
    ) from reasons[0]


def _from_folder(found: PublicSet, config: str | None, folder: Path) -> Any:
    library = _library()
    library.disable_progress_bars()
    if not folder.is_dir():
        raise DataError(f"There is no folder {str(folder)!r}; give the folder of a copy of {found.name}.")
    place = _below(folder, config)
    try:
        if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
            saved = library.load_from_disk(str(place))
            return _split(found, saved, place) if isinstance(saved, dict) else saved
        for kind in ("parquet", "arrow"):
            if files := _files(found, config, folder, kind):
                names = [str(path) for path in files]
                return library.load_dataset(kind, data_files=names, split="train", streaming=True)
        if any(place.rglob("metadata.*")):
            loaded = library.load_dataset("imagefolder", data_dir=str(place), streaming=True)
            return _split(found, loaded, place)
    except EyelineError:
        raise
    except Exception as error:  # of pyarrow and of the library's builders
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(f"{folder} cannot be read as {found.name} ({said}); download it again.") from error
    raise DataError(
        f"{folder} holds no Parquet or Arrow files, nor images with metadata; expected a copy of {found.name}"
        f"{f' ({config})' if config else ''}, as {(*found.hub, 'its page')[0]} has it."
    )


def _below(folder: Path, config: str | None) -> Path:
    """Where a configuration lies in a folder; the folder itself where it has no place of its own."""
    places = [folder / config, folder / "data" / config] if config else []
    return next((place for place in places if place.is_dir()), folder)


def _files(found: PublicSet, config: str | None, folder: Path, suffix: str) -> list[Path]:
    """Files of the split; all, where their names tell of no split. Raises `DataError` where they tell only of others."""
    files = sorted(_below(folder, config).rglob(f"*.{suffix}"))
    told = {path: _told(path.relative_to(folder)) for path in files}
    if not any(told.values()):
        return files
    wanted = {found.split, *SAME.get(found.split, ())}
    chosen = [path for path in files if told[path] & wanted]
    if not chosen:
        others = ", ".join(sorted(set.union(*told.values())))
        raise DataError(
            f"{folder} holds the split {others} of {found.name}, where {found.split} is expected; copy its files as well."
        )
    return chosen


def _told(path: Path) -> set[str]:
    """The splits that the name of a file, or else of a folder that it is in, tells of."""
    for name in (path.stem, *(part for part in reversed(path.parts[:-1]))):
        if found := {split for split in SPLITS if split in re.split(r"[-_.]", name)}:
            return found
    return set()


def _split(found: PublicSet, loaded: Any, place: Path) -> Any:
    wanted = next((name for name in (found.split, *SAME.get(found.split, ())) if name in loaded), None)
    if wanted is None and len(loaded) == 1:
        wanted = next(iter(loaded))
    if wanted is None:
        raise DataError(
            f"{place} holds the splits {', '.join(loaded)}, where {found.split} is expected; name the folder of that split."
        )
    return loaded[wanted]


def _renamed(found: PublicSet, row: Row) -> dict[str, Any]:
    named = dict(row)
    for other, ours in found.also_called.items():
        if ours not in named and other in named:
            named[ours] = named.pop(other)
    return named


def _check(found: PublicSet, row: Row) -> None:
    missing = [name for name in found.columns if name not in row]
    if missing:
        raise DataError(
            f"{found.name} should have the columns {', '.join(found.columns)}; here {', '.join(missing)} is not there, only "
            f"{', '.join(sorted(row))}: give a copy of {(*found.hub, 'its release')[0]}."
        )


def _guarded(found: PublicSet, rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows; what breaks on the way is told as a sentence."""
    number = 0
    try:
        for row in rows:
            yield row
            number += 1
    except (EyelineError, GeneratorExit):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise DataError(
            f"{found.name} cannot be read after {number} rows ({said}); run the same again, or download it again."
        ) from error
