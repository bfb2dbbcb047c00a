"""Two traces beside each other, what differs marked, and the numbers of thinking again."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from eyeline.report import percent
from eyeline.thinking_again import Piece, ThoughtAgain

MARKS = {"first": "bold red strike", "again": "bold green"}


def side_by_side(pieces: list[Piece], again: str) -> Table:
    """The first trace left, the new one right."""
    table = Table("as it was", again, expand=True, show_edge=False, pad_edge=False)
    table.add_row(*(
        Text.assemble(*((text, MARKS.get(kind, "")) for kind, text in pieces if kind in ("same", side)))
        for side in MARKS
    ))  # fmt: skip
    return table


def numbers(told: ThoughtAgain) -> Table:
    """A row for each set, the largest fall first, and the null rows."""
    found, samples = told.found, len(told.found.again[0])
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("hidden", no_wrap=True)
    for name in ("changes", "total", "direct", "through", "predicted"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("new answer", overflow="fold")
    for at in sorted(range(len(told.sets)), key=lambda at: -float(found.total[at])):
        prediction = told.predicted[at]
        table.add_row(
            name_of(told, at), _share(float(found.changes[at]), samples),
            *(nats(float(each[at])) for each in (found.total, found.direct, found.through)),
            "" if prediction is None else percent(prediction["changes"]),
            Text(found.again[at][0].answer),
        )  # fmt: skip
    table.add_section()
    names = {"nothing": "nothing", "plain": "the plainest region", "noise": "nothing, with noise"}
    for name, changes, falls in zip(
        names.values(), found.null_changes.tolist(), found.nulls.tolist(), strict=True
    ):
        direct, through, total = map(nats, falls)
        table.add_row(name, _share(changes, samples), total, direct, through, "", "")
    return table


def show(console: Console, told: ThoughtAgain, *, every: bool) -> None:
    """Numbers, and both traces of every set, or of that single region whose total is largest."""
    parts: list[RenderableType] = []
    single = [at for at, regions in enumerate(told.sets) if len(regions) == 1]
    sets = range(len(told.sets)) if every else [max(single, key=lambda at: float(told.found.total[at]))]
    for at in sets:
        parts += [side_by_side(told.differences(at), f"without {name_of(told, at)}"), ""]
    console.print(Group(*parts, numbers(told)))
    console.print("total, direct, through: falls in nats, less the mean of the last three rows", style="dim")
    console.print("predicted: how likely the answer was to change", style="dim")


def name_of(told: ThoughtAgain, at: int) -> str:
    regions = told.sets[at]
    if len(regions) == told.found.sets.shape[1]:
        return "the whole image"
    return ("region " if len(regions) == 1 else "regions ") + ", ".join(map(str, regions))


def nats(fall: float) -> str:
    return f"{round(fall, 2) + 0.0:.2f}"  # without a sign where it is nothing


def _share(changes: float, samples: int) -> str:
    if samples == 1 and changes in (0, 1):
        return "yes" if changes else "no"
    return percent(changes)
