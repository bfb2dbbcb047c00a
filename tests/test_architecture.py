"""What docs/architecture.md says of the package, held against its source: imports, rooms, lengths and names."""

import ast
import functools
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import eyeline

PACKAGE = Path(eyeline.__file__).parent
ROOT = PACKAGE.parent
LONGEST = 500  # lines of a file


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(source: str, module: str) -> set[str]:
    """All modules of the package that a source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by a relative name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return {name for name in found if name in FILES} - {module}


GRAPH = {module: imports_of(path.read_text(encoding="utf-8"), module) for module, path in FILES.items()}


@functools.cache
def rooms() -> list[tuple[str, list[str]]]:
    """The rooms of docs/architecture.md from the lowest up, and what is in each: files, and folders with a slash."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| \*\*(.+?)\*\* \| (.+?) \|", text, re.MULTILINE)
    return [(name, re.findall(r"`([\w/.]+)`", places)) for name, places in rows]


def room_of(module: str) -> list[int]:
    """The numbers of all rooms that a module is listed in."""
    place = FILES[module].relative_to(PACKAGE).as_posix()
    return [
        number
        for number, (_, places) in enumerate(rooms())
        for each in places
        if place == each or (each.endswith("/") and place.startswith(each))
    ]


def test_an_import_is_found_wherever_it_stands():
    source = (
        "from typing import TYPE_CHECKING\nimport torch\nfrom eyeline import adapters, load\n"
        "if TYPE_CHECKING:\n    from eyeline.stream import Stream\n"
        "def f():\n    import eyeline.events\n    from eyeline.server.app import serve\n"
    )
    assert imports_of(source, "eyeline.x") == {
        "eyeline", "eyeline.adapters", "eyeline.stream", "eyeline.events", "eyeline.server.app",
    }  # fmt: skip


def test_no_module_imports_itself_by_way_of_others():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None


def test_each_module_stands_in_one_room_and_imports_nothing_from_a_room_above():
    assert len(rooms()) > 5
    for module, imported in GRAPH.items():
        assert len(room_of(module)) == 1, f"{module} in docs/architecture.md"
        for other in imported:
            assert room_of(other) <= room_of(module), f"{module} imports {other}"


def test_every_place_of_the_map_is_there():
    for _, places in rooms():
        for place in places:
            assert (PACKAGE / place).exists(), place


def test_no_file_is_longer_than_500_lines():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in (PACKAGE, ROOT / "benchmarks", ROOT / "tests")
        for path in folder.rglob("*.py")
    }
    assert {name.split("/")[0] for name in lengths} == {"eyeline", "benchmarks", "tests"}
    assert not {name for name, lines in lengths.items() if lines > LONGEST}


def test_no_two_modules_have_one_name():
    names = [path.stem for path in FILES.values() if path.stem != "__init__"]
    assert not {name for name in names if names.count(name) > 1}
