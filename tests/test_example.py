"""The notebook in docs/: it runs as it is, and what it predicts is what it measures, roughly."""

import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="needs pip install nbclient ipykernel")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parent.parent / "docs" / "example.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_what_it_puts_out(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def test_the_notebook_shows_an_answer_and_measures_what_it_predicts(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [each for cell in notebook.cells if cell.cell_type == "code" for each in cell.outputs]
    printed = "".join(each.text for each in outputs if each.output_type == "stream" and each.name == "stdout")
    frames = [each for each in outputs if "<iframe" in each.get("data", {}).get("text/html", "")]
    assert len(frames) == 1  # of the whole run, in the place of the live one
    answer, expected = re.search(r"The answer is (.*) and should be (.*)", printed).groups()
    assert answer == expected
    predicted, measured = map(float, re.search(r"predicted (.*) nats, measured (.*) nats", printed).groups())
    assert 1 < predicted < 3 * measured
    assert 1 < measured < 3 * predicted
