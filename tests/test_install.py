"""What a new interpreter sees: a light import, and the files that ship with the package."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import eyeline

ROOT = Path(eyeline.__file__).parents[1]
HEAVY = (
    "fastapi", "starlette", "uvicorn", "matplotlib", "plotly", "sklearn", "scipy", "pandas", "datasets", "ray",
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


def test_the_version_is_told_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == eyeline.__version__
    assert project["project"]["scripts"] == {"eyeline": "eyeline.cli:main"}
