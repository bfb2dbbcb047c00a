"""The README's table is what a command has written into results/."""

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHODS = {
    "raw attention, mean over a region": "raw-attention-mean",
    "AttnLRP": "attn-lrp",
    "gradient times input": "input-gradient",
    "regression on 32 hidden sets (ContextCite)": "regression-32",
    "the paper's linear estimator, with our leak map": "eyeline (paper-attention)",
    "Eyeline, what the heat shows": "eyeline (eyeline-mini)",
    "Eyeline, joint falls": "eyeline (eyeline-mini), joint",
    "exhaustive ablation, one region at a time": "exhaustive",
}


def lines() -> list[str]:
    return (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_readme_can_be_read_in_a_minute():
    assert len(lines()) <= 120


@pytest.mark.parametrize(("name", "method"), METHODS.items())
def test_a_row_of_the_readme_is_what_was_measured(name, method):
    with (ROOT / "results" / "faithfulness.csv").open(encoding="utf-8") as file:
        found = {
            (row["metric"], row["at"]): row
            for row in csv.DictReader(file)
            if row["method"] == method and row["family"] == "mean"
        }
    (line,) = [line for line in lines() if line.replace("*", "").startswith(f"| {name} |")]
    lds, r2, drop, pointing, passes = (cell.strip() for cell in line.replace("*", "").split("|")[2:-1])
    row = found["lds", "0.5"]
    assert lds == "{:.2f} [{:.2f}, {:.2f}]".format(*(float(row[end]) for end in ("value", "low", "high")))
    for cell, key, digits in (
        (r2, ("r2_span", "0.5"), 2),
        (drop, ("top_drop", "5"), 1),
        (pointing, ("pointing", ""), 2),
    ):
        assert cell == f"{float(found[key]['value']):.{digits}f}"
    backward, forward = (float(found[f"{way}_passes", ""]["value"]) for way in ("backward", "forward"))
    expected = f"{backward:.1f} back" if backward else "0" if forward == 1 else f"{forward:.0f}"
    assert passes == expected


def test_what_the_readme_says_of_general_weights_is_what_was_measured():
    lds = {}
    for name in ("levels_first", "table_glm4v-mini"):
        with (ROOT / "results" / f"{name}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if (row["family"], row["metric"], row["at"]) == ("mean", "lds", "0.5"):
                    lds[name, row["method"]] = f"{float(row['value']):.2f}"
    ours = [lds["levels_first", "eyeline (none)"], lds["table_glm4v-mini", "eyeline (general)"]]
    theirs = [lds[name, "attn-lrp"] for name in ("levels_first", "table_glm4v-mini")]
    said = f"they reach LDS {' and '.join(ours)}, AttnLRP {' and '.join(theirs)} "
    assert said in " ".join(lines())


def test_what_the_readme_says_of_a_truer_rival_is_what_was_measured():
    with (ROOT / "results" / "faithfulness.csv").open(encoding="utf-8") as file:
        found = {
            (row["metric"], row["at"]): float(row["value"])
            for row in csv.DictReader(file)
            if row["method"] == "ridge-256" and row["family"] == "mean"
        }
    (line,) = [line for line in lines() if "ridge regression on 256" in line]
    assert f"({found['forward_passes', '']:.0f} passes) has LDS {found['lds', '0.5']:.2f}." in line


def test_every_file_that_the_readme_names_is_there():
    text = "\n".join(lines())
    named = {path.partition("#")[0] for path in re.findall(r"\]\(([^)]+)\)", text) if "://" not in path}
    assert named
    assert all((ROOT / path).exists() for path in named), sorted(
        path for path in named if not (ROOT / path).exists()
    )
