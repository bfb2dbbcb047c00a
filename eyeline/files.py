"""How files are read and written: text is UTF-8, files are replaced whole or not at all, a full disk is told early.

And folders that the same command goes on with.
"""

import codecs
import errno
import glob
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from eyeline.errors import DataError

NO_LINKS = (
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
)  # of file systems without a second name
ROOM = 2**20  # bytes that a disk must take before long work begins for it
# What files of other encodings begin with; UTF-32 first, whose mark begins as UTF-16's does
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip


def read_text(path: Path) -> str:
    """A text file's content. Raises `ValueError`, fit to be a part of a sentence, where it is not UTF-8."""
    return decode_text(path.read_bytes())


def decode_text(content: bytes) -> str:
    """UTF-8, with or without a byte order mark. Raises as `read_text` does."""
    try:
        return _without_mark(content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is not UTF-8: byte {error.start + 1} is {content[error.start]:#04x}; save it as UTF-8"
        ) from error


def read_lines(path: Path) -> list[bytes]:
    """A text file's lines, each still to be decoded: the last one of a file that was cut short may not be whole.

    Only newlines end a line: JSON may hold U+2028. Raises `ValueError` for UTF-16 and UTF-32.
    """
    return _without_mark(path.read_bytes()).split(b"\n")


def _without_mark(content: bytes) -> bytes:
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"it is {encoding}, not UTF-8; save it as UTF-8")
    if b"\0" in content[:2]:  # no mark, but a letter of two bytes or more
        raise ValueError("it is UTF-16 or no text at all, not UTF-8; save it as UTF-8")
    return content.removeprefix(codecs.BOM_UTF8)


def check_room(path: Path) -> None:
    """Raises `DataError` where nothing could be written to a file or folder of that name: called before long work for it.

    Writes ROOM bytes to a file without a name, in the folder or the nearest one that there is; nothing stays.
    """
    try:
        place = path.absolute()
        place = place if place.is_dir() else place.parent
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(os.urandom(ROOM))  # what is alike takes no room on some file systems
            file.flush()
            os.fsync(file.fileno())  # some report a full disk only here
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are missing. Raises `DataError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


MADE_WITH = "run.json"  # what a folder of work was made with
TOLD = 40  # characters of a setting that a refusal shows


def open_folder(out: Path, made_with: Mapping[str, Any], what: str) -> None:
    """Begins a folder of work that the same command goes on with, or goes on with the one there.

    `made_with` stands in its run.json, and must be the same whenever it goes on; of a model that is its `fingerprint`, whatever
    its name is. Raises `DataError` where the folder is not `what` it should be, or was made with something else.
    """
    path = out / MADE_WITH
    if not path.exists():
        strange = out.exists() and (
            not out.is_dir() or any(not each.name.endswith(".part") for each in out.iterdir())
        )
        if strange and not path.exists():  # another process may have opened it meanwhile
            raise DataError(f"{out} is no empty folder and no {what}; choose another --out.")
        make_folder(out)
        write_first(path, (json.dumps(made_with, indent=2) + "\n").encode())
    try:
        before = json.loads(read_text(path))
        different = differences(before, json.loads(json.dumps(made_with)))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{out} has no readable {MADE_WITH} ({error}); choose another --out.") from error
    if different:
        raise DataError(
            f"{out} was made with another {' and another '.join(different)}; expected an empty folder, or the same again: "
            "choose another --out."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What folders of work were made with otherwise: names, with both values where they are short enough to tell them apart.

    Settings that one of them lacks differ too.
    """
    one, other = ({**each, **each.get("settings", {})} for each in (before, now))
    found = []
    for name in {**other, **one}:
        same = name in one and name in other and one[name] == other[name]
        if not same and name not in ("settings", "model"):
            told = "model" if name == "fingerprint" else name
            there, here = (json.dumps(each.get(told), ensure_ascii=False) for each in (one, other))
            shown = there != here and max(len(there), len(here)) <= TOLD
            found.append(f"{told} ({there} there, {here} here)" if shown else told)
    return found


def write_files(files: Mapping[Path, bytes]) -> None:
    """Writes all files or none: each beside its place first, then all moved there in order.

    A reader sees the old file or the new one, never a part. Raises `DataError`, for a full disk too.
    """
    beside = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    path = next(iter(files))
    try:
        for path, content in files.items():
            if path.exists() and not path.is_file():
                raise DataError(f"{str(path)!r} is not a regular file: give the name of a file to write.")
            _write_part(beside[path], content)
        for path in files:
            os.replace(beside[path], path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        for part in beside.values():
            _remove(part)


def write_first(path: Path, content: bytes) -> None:
    """Writes a file that other processes may be writing too, whole or not at all: that of the first one stays.

    What killed processes have left beside it goes. Raises `DataError`, for a full disk too.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        _write_part(part, content)
        try:
            os.link(part, path)  # unlike a move, refuses where a file is
        except OSError as error:
            if error.errno in NO_LINKS:
                os.replace(part, path)
            elif not path.is_file():  # else another process was first, and has perhaps cleared our part away
                raise
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        _remove(part)
    for each in path.parent.glob(f".{glob.escape(path.name)}.*part"):
        _remove(each)


def _write_part(part: Path, content: bytes) -> None:
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # some file systems report a full disk only here


def _remove(part: Path) -> None:
    with suppress(OSError):
        part.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> DataError:
    """The sentence for a file or folder that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"The disk is full: {str(path)!r} could not be written; free some space or write elsewhere."
        )
    return DataError(f"{str(path)!r} could not be written ({error.strerror}); give a place you can write to.")
