"""Long scenes: a whole table, receipt, chart, list, chain or shelf, asked about in several parts."""

from collections.abc import Callable
from random import Random

from eyeline.scenes.canvas import Canvas
from eyeline.scenes.long import charts, nature, pages, papers, shelves
from eyeline.scenes.long.sheet import Sheet

KINDS: dict[str, dict[str, Callable[[Random], tuple[Canvas, Sheet]]]] = {
    "math": {"bars": charts.bars, "line": charts.line},
    "science": {"log": nature.log, "chain": nature.chain},
    "document": {"table": papers.table, "receipt": papers.receipt, "form": papers.form},
    "code": {"page": pages.page, "plot": charts.plot},
    "general": {"shelf": shelves.shelf},
}
