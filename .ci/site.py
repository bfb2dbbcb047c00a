"""Makes one site of docs/ and of whatever its pages link to elsewhere in the repository: tables, figures, texts, code.

Pages link to files as they lie in the repository, so that every link works on a code host too. Here those files are
brought in beside the pages, and the links follow; the example notebook becomes a page.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
TEXTS = ("CHANGELOG.md", "CONTRIBUTING.md")  # pages that lie beside the README
INSTEAD = {"README.md": "docs/index.md", "docs/example.ipynb": "docs/example.md"}
NESTED = re.compile(r"(?m)^( {3}| {5})(?=[^ ])")  # parts of a numbered item, which need one space more here
LINK = re.compile(r"\[([^\]\[]*)\]\((?![a-z]+:|#)([^)#\s]+)([^)]*)\)")  # text, path, the rest
UNBROKEN = re.compile(r"(?<=\d) (?=%)|(?<=\d,) (?=-?[\d.]+\])")  # before %, inside of an interval


def on_files(files, config):
    for name in TEXTS:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "example.md", content=page_of(ROOT / "docs" / "example.ipynb")))
    for page in files.documentation_pages():
        for _, target, _ in LINK.findall(page.content_string):
            name = in_repository(page.src_uri, target)
            is_elsewhere = not name.startswith("docs/") and name not in INSTEAD
            if is_elsewhere and (ROOT / name).is_file() and name not in files.src_uris:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    def follow(link):
        text, target, rest = link.groups()
        name = in_repository(page.file.src_uri, target)
        if (ROOT / name).is_dir():  # a site has none to show
            return text
        if page.file.src_uri != "example.md":
            name = INSTEAD.get(name, name)
        return f"[{text}]({name.removeprefix('docs/')}{rest})"

    markdown = NESTED.sub(r"\1 ", markdown)
    return UNBROKEN.sub("\N{NO-BREAK SPACE}", LINK.sub(follow, markdown))


def in_repository(page: str, target: str) -> str:
    """The path in the repository that a page's link leads to."""
    return posixpath.normpath(posixpath.join("" if page in TEXTS else "docs", target))


def page_of(notebook: Path) -> str:
    """A notebook's text and code, without what its cells have put out."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join([*parts, "The same as a notebook: [example.ipynb](example.ipynb)."])
