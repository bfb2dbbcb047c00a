"""The pages of docs/ and those beside the README: their links lead somewhere, and every reader of Markdown sees the same."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from eyeline.catalogue import SETS
from eyeline.evaluation.answers import RULES
from eyeline.events import from_json, to_json

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")


def prose(page):
    """The lines of a page; those of code are left empty."""
    lines, code = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.lstrip().startswith("```")
        lines.append("" if fence or code else line)
        code ^= fence
    return lines


def anchors(page):
    """What links to headings end in, as code hosts and the site make it."""
    headings = [line.lstrip("#").strip() for line in prose(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_link_leads_to_a_file_and_a_heading_of_it(page):
    links = re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", "\n".join(prose(page)))
    for target, anchor in links:
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pages
def test_lists_and_tables_begin_after_an_empty_line(page):
    """Without it the site shows them as text."""
    lines = prose(page)
    for before, line in pairwise(lines):
        starts = line.startswith("|") and not before.startswith("|")
        starts |= bool(re.match(r"(?:- |1\. )", line)) and not (ITEM.match(before) or before.startswith(" "))
        assert not starts or not before.strip() or before.startswith("#"), line


def test_the_page_of_public_sets_says_what_the_catalogue_says():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for found in SETS.values():
        (line,) = re.findall(rf"^\| `{found.name}` \|.*$", text, re.MULTILINE)
        rows = "" if found.rows is None else f"{found.rows:,}"
        assert line.endswith(f" | {rows} | {found.rule} | {found.licence} |")
        assert f"- **{found.name}**: {found.note}" in text or not found.note
    assert set(RULES) <= set(re.findall(r"`([a-z-]+)`", text))


def test_the_hours_of_the_run_book_are_those_of_its_own_formula():
    """Rows x operations of an image, on the shapes of an 8B model, at 30 % of a GPU's peak."""
    text = (ROOT / "docs" / "train-an-estimator.md").read_text(encoding="utf-8")
    layers, width, inner, heads = 36, 4096, 12288, 1024
    position = 2 * layers * (2 * width**2 + 2 * width * heads + 3 * width * inner)
    token, patch = 2 * 151936 * width, 2 * 27 * (4 * 1152**2 + 2 * 1152 * 4304)
    cells, regions, trace, question = 1024, 64, 512, 64
    length = cells + question + trace
    language = length * position + 2 * layers * width * length**2 + trace * token
    tower = 4 * cells * patch + 4 * 27 * 1152 * (4 * cells) ** 2
    rows = 36 + regions + 1 + 0.08 * 16 * regions
    by_pixels = 2 * rows * (language + tower)  # each batch of two rows has one with nothing hidden
    again = question + trace
    knocked = again * position + 4 * layers * width * again * (length - trace / 2) + trace * token
    by_attention = rows * 7 / 6 * knocked
    evaluated = 2 * (96 + regions + 1 + 6 * 20 * 4) * (language + tower)

    def line(name: str, operations: float) -> str:
        hours = (f"{operations / (0.3 * peak * 1e12) / 3600:.1f} h" for peak in (989, 312))
        return rf"{name}[^|]*\| {operations / 1e15:,.0f} PFLOP \| {' .. '.join(hours)} \|".replace(
            "..", r"\|"
        )

    assert f"**{by_pixels / 1e15:.1f} PFLOP**" in text
    assert f"{position / 1e9:.1f} GFLOP a position, {token / 1e9:.1f} more a token" in text
    assert f"{language / 1e12:.1f} TFLOP" in text
    assert f"{tower / 1e12:.1f} TFLOP" in text
    assert re.search(line("collect, 100 images", 100 * by_pixels), text)
    assert re.search(line("the same by `--hiding attention`", 100 * by_attention), text)
    assert re.search(line("evaluate, 70 images", 70 * evaluated), text)


def test_the_bytes_and_hours_of_larger_runs_are_those_of_their_formulas():
    book, text = (
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for name in ("train-an-estimator", "larger-runs")
    )
    (said,) = re.findall(r"collect, 100 images \| ([\d,]+) PFLOP", book)
    image = float(said.replace(",", "")) / 100 * 1e15
    one = 64 * 4 * 36 * 32 * 2  # bytes of a token
    as_set = 64 * 8 * 2
    assert (
        f"every head (`--features heads`) they are tokens x regions x 4 kinds x layers x heads, {512 * one / 1e6:.0f} MB for"
        in text
    )
    assert f"{512 * as_set / 1e6:.1f} MB for" in text
    for images in (100, 1000, 10000):
        few, every = images * 512 * as_set / 1e9, images * 512 * one / 1e9
        small = f"{few:.2f}" if few < 0.1 else f"{few:.1f}" if few < 1 else f"{few:.0f}"
        assert f"| {images:,} | {small} GB | {every:,.0f} GB | {every / 10:,.0f} GB |" in text
        hours = images * image / (0.3 * 989e12) / 3600
        eight, more = (
            f"{hours / count:.1f}" if hours / count > 0.05 else f"{hours / count:.2f}" for count in (8, 32)
        )
        assert f"| {images:,} | {hours:.1f} | {eight} h | {more} h |" in text


def test_all_pages_count_spans_and_regions_from_0():
    told = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    assert [name for name, text in told.items() if re.search(r"(spans|regions)[^.]* from 1\b", text)] == []
    assert "regions from 0, as the API does" in told["server.md"]


def test_every_entry_of_the_log_has_its_date():
    headings = [line for line in prose(ROOT / "docs" / "log.md") if line.startswith("## ")]
    assert headings
    assert [each for each in headings if not re.search(r"\(.*\d{4}-\d\d-\d\d.*\)$", each)] == []


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="needs pip install 'eyeline[docs]'")
    pytest.importorskip("mkdocstrings", reason="needs pip install 'eyeline[docs]'")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        tmp_path / "site",
    ]
    built = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env={"PATH": "", "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    shown = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert {"index.html", "api.html", "example.html", "CONTRIBUTING.html"} <= set(shown)
    assert (tmp_path / "site" / "results" / "faithfulness.csv").is_file()
    assert "SpanAttribution" in shown["api.html"]
    for name, text in shown.items():
        assert not re.search(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(?:https?:)?//", text), name


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in ("log.md", "CHANGELOG.md")],
    ids=lambda page: page.name,
)
def test_all_code_and_text_that_a_page_names_by_its_path_is_there(page):
    named = re.findall(
        r"(?<![\w/])(?:eyeline|tests|runs|docs)/[\w/*-]+\.(?:py|sh|md|html|png)",
        page.read_text(),
    )
    assert [each for each in named if not list(ROOT.glob(each))] == []


def test_examples_of_events_are_what_is_written_today():
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith('{"event": ') and "..." not in line]
    assert len(lines) >= 5
    assert [to_json(from_json(line)) for line in lines] == lines
