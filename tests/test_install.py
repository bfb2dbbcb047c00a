"""What a new interpreter sees: a light import, and the files that ship with the package."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_report import make_run

import eyeline
from eyeline import scenes
from eyeline.cli import main
from eyeline.errors import EyelineError
from eyeline.film import render_film
from eyeline.scenes.canvas import FONTS
from eyeline.server import gallery
from eyeline.server.request_error import RequestError

ROOT = Path(eyeline.__file__).parents[1]
HEAVY = (
    "fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic", "matplotlib",
    "plotly", "sklearn", "scipy", "pandas", "datasets", "ray",
    "rich", "click", "transformers", "eyeline.training", "eyeline.evaluation", "eyeline.scenes", "eyeline.cli",
)  # fmt: skip
FILES = ("report.html", "server/static/view.js", "py.typed")
IMPORT = """
import json, sys, time, torch
begun = time.process_time()
import eyeline
took = time.process_time() - begun
from importlib.resources import files
found = {name: len(files("eyeline").joinpath(name).read_bytes()) for name in %r}
print(json.dumps({"took": took, "modules": list(sys.modules), "found": found, "public": dir(eyeline)}))
"""


def test_a_fresh_import_is_light_and_finds_its_files(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "encoding": "utf-8"}
    ended = subprocess.run([sys.executable, "-c", IMPORT % (FILES,)], check=False, **options)
    assert (ended.returncode, ended.stderr) == (0, "")
    seen = json.loads(ended.stdout)
    assert "eyeline.model" in seen["modules"]
    assert not [name for name in HEAVY if name in seen["modules"]]
    assert seen["took"] < 1.0, "CPU seconds beside torch's own"
    assert seen["found"]["server/static/view.js"] > 1000
    assert set(eyeline.__all__) <= set(seen["public"])


def test_every_file_that_is_not_code_is_declared_as_package_data():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = project["tool"]["setuptools"]["package-data"]["eyeline"]
    folder = Path(str(files("eyeline")))
    shipped = {path for pattern in declared for path in folder.glob(pattern) if path.is_file()}
    assert {folder / name for name in FILES} <= shipped
    present = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert not present - shipped


def test_the_wheel_holds_the_package_and_none_of_our_experiments():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {name for name in folders if any(fnmatch(name, pattern) for pattern in patterns)} == {"eyeline"}
    assert "benchmarks" in folders
    for file in (ROOT / "eyeline").rglob("*.py"):
        assert not re.search(
            r"^\s*(import|from) benchmarks", file.read_text(encoding="utf-8"), re.MULTILINE
        ), file


def test_the_version_is_told_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == eyeline.__version__
    assert project["project"]["scripts"] == {"eyeline": "eyeline.cli:main"}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements):
    """Of distributions, those that only an extra asks for left out."""
    found = [re.match(r"[\w.-]+", each)[0] for each in requirements if "extra ==" not in each]
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


def test_the_server_imports_nothing_that_a_default_install_does_not_bring():
    brought = names(project()["dependencies"])
    brought |= {name for each in tuple(brought) for name in names(metadata.requires(each) or ())}
    owners = metadata.packages_distributions()
    for file in (ROOT / "eyeline" / "server").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in {each.partition(".")[0] for each in modules}:
                if module not in {*sys.stdlib_module_names, "eyeline"}:
                    assert names(owners[module]) & brought, f"{file.name} imports {module}"


@pytest.fixture
def without_extra_fonts(monkeypatch):
    """As where nothing but a default install was done."""
    extra = names(project()["optional-dependencies"]["scenes"])
    for package, _ in FONTS:
        if names([package]) <= extra:
            monkeypatch.setitem(sys.modules, package, None)
    assert len(extra) == 3


SENTENCE = r"font_hanken_grotesk, font_manrope, font_caladea\): pip install 'eyeline\[scenes\]'\."


def test_without_the_fonts_of_scenes_none_is_drawn_and_what_to_install_is_told(without_extra_fonts, tmp_path):
    for family in scenes.FAMILIES:  # of any font, the installed one included
        with pytest.raises(EyelineError, match=SENTENCE):
            scenes.sample(family, 8_000_001)
    for words in (["demo", "--out", str(tmp_path / "a")], ["scenes", "--out", str(tmp_path / "b")]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 1
        assert re.search(SENTENCE, result.stderr.splitlines()[-1])


def test_without_the_fonts_of_scenes_the_gallery_is_empty_and_says_why(without_extra_fonts):
    assert gallery.scenes() == {}
    assert re.search(SENTENCE, gallery.notice())
    with pytest.raises(RequestError, match="no such scene"):
        gallery.draw_png("{}-{}".format(*gallery.SCENES[0]))


def test_without_the_fonts_of_scenes_films_are_drawn(without_extra_fonts):
    assert render_film(make_run()).startswith(b"GIF8")


def test_with_the_fonts_of_scenes_the_gallery_has_twenty_and_one_and_nothing_to_say():
    assert len(gallery.scenes()) == 21
    assert gallery.notice() is None


def made(target):
    """The commands that `make` would run where nothing is installed."""
    options = {"cwd": ROOT, "capture_output": True, "encoding": "utf-8", "check": True}
    return subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", target], **options
    ).stdout.splitlines()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_ends_by_saying_how_to_open_the_page_and_both_install_the_fonts_of_scenes():
    *_, demo, last = made("demo")
    assert demo.endswith("eyeline demo --out demo")
    assert "make serve" in last
    assert made("serve")[-1].endswith("eyeline serve --open")
    for target in ("demo", "serve", "install-dev"):
        lines = [line for line in made(target) if "pip install" in line and "--editable" in line]
        assert "[scenes]" in lines[0]
    assert "eyeline[scenes," in project()["optional-dependencies"]["dev"][0]
