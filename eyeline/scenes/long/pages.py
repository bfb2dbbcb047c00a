"""Long code scenes: a whole page to HTML."""

from random import Random

from eyeline.scenes.canvas import COLOURS, Canvas
from eyeline.scenes.document import spread
from eyeline.scenes.lexicon import (
    BUTTONS,
    FOODS,
    NAMES,
    NOTES,
    TITLES,
)
from eyeline.scenes.long.sheet import GRIDS, Line, Part, Sheet, Value, Values
from eyeline.scenes.markup import button_html, draw_button, draw_list, heading_html, list_html


def page(rng: Random) -> tuple[Canvas, Sheet]:
    """A heading, a list of five to seven entries, a line of text and a button."""
    canvas = Canvas(rng, grids=GRIDS)
    title, colour = rng.choice(TITLES), rng.choice(list(COLOURS))
    group = rng.choice((FOODS, NAMES))
    entries = rng.sample(group, rng.randint(5, 7))
    ordered = rng.random() < 0.4
    size = rng.randint(19, 23)
    left = rng.randint(10, 26)
    ys = spread(canvas, len(entries) + 3, size, 4)
    title_box = canvas.text(left, ys[0], title, round(size * 1.3), colour=colour)
    lines = [Line("The heading says {} in {}.", (title, colour), (title_box,), ("", ""))]
    boxes, bullets = draw_list(canvas, entries, ys[1:], left, size, ordered)
    for order, (entry, box) in enumerate(zip(entries, boxes, strict=True), start=1):
        mend = (f"entry {order} is {{}}, not {{}}",)
        lines.append(Line(f"Entry {order} is {{}}.", (entry,), (box,), mend, (group,)))
    kind = "numbers" if ordered else "bullets"
    lines.append(Line("The entries have {}.", (kind,), tuple(bullets), ("",)))
    note = rng.choice(NOTES)
    note_box = canvas.text(left, ys[-2], note, size)
    lines.append(Line("The text says {}.", (note,), (note_box,), ("",)))
    press, button_colour = rng.choice(BUTTONS), rng.choice(list(COLOURS))
    button_box = draw_button(canvas, (left, ys[-1]), round(size * 0.75), press, size, button_colour)
    lines.append(Line("The {} button says {}.", (button_colour, press), (button_box,), ("", "")))

    def html(values: Values) -> list[str]:
        read = [str(value[0]) for value in values[1 : len(entries) + 1]]
        return [
            "<body>", heading_html(str(values[0][0]), str(values[0][1])), *list_html(read, ordered),
            f"<p>{values[-2][0]}</p>", button_html(str(values[-1][1]), str(values[-1][0])), "</body>",
        ]  # fmt: skip

    def work(values: Values) -> tuple[list[str], Value]:
        written = html(values)
        told = [f"Then {each} comes." for each in written[1:-1]]
        return [f"The code begins with {written[0]}.", *told, f"It ends with {written[-1]}."], "\n".join(
            written
        )

    return canvas, Sheet(lines, [Part("Write the HTML of this page.", work)], "page")
