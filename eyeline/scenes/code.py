"""Code scenes: a small page to HTML, a list page to HTML, a chart to plotting code."""

from random import Random

from eyeline.scenes.canvas import COLOURS, Canvas
from eyeline.scenes.document import spread
from eyeline.scenes.lexicon import BUTTONS, FOODS, NAMES, NOTES, TITLES
from eyeline.scenes.markup import button_html, draw_button, draw_list, heading_html, list_html
from eyeline.scenes.maths import chart
from eyeline.scenes.question import Question, Sentence


def page(rng: Random) -> tuple[Canvas, list[Question]]:
    """A heading, a line of text and a button."""
    canvas = Canvas(rng, grids=((8, 8), (8, 8), (9, 8), (10, 8), (8, 10), (10, 10), (12, 9)))
    title, note, press = rng.choice(TITLES), rng.choice(NOTES), rng.choice(BUTTONS)
    colour, button_colour = rng.sample(list(COLOURS), 2)
    size = rng.randint(20, 27)
    left = rng.randint(10, 30)
    ys = spread(canvas, 3, round(size * 1.5), 4)
    title_box = canvas.text(left, ys[0], title, round(size * 1.45), order=1, colour=colour)
    note_box = canvas.text(left, ys[1], note, size, order=2)
    button_box = draw_button(canvas, (left, ys[2]), round(size * 0.8), press, size, button_colour, order=3)
    read: tuple[Sentence, ...] = (
        (f"The heading says {title} in {colour}.", (title_box,)),
        (f"The text says {note}.", (note_box,)),
        (f"The {button_colour} button says {press}.", (button_box,)),
    )
    heading, paragraph, button = (
        heading_html(title, colour),
        f"<p>{note}</p>",
        button_html(press, button_colour),
    )
    return canvas, [
        Question(
            "Write the HTML of this page.", read, "\n".join(("<body>", heading, paragraph, button, "</body>"))
        ),
        Question("Write the HTML of the button.", (read[2],), button),
        Question("Write the HTML of the heading.", (read[0],), heading),
    ]


def listing(rng: Random) -> tuple[Canvas, list[Question]]:
    """A heading and a list of two to four entries."""
    canvas = Canvas(rng, grids=((8, 8), (8, 8), (9, 8), (8, 9), (8, 10), (10, 10)))
    title, colour = rng.choice(TITLES), rng.choice(list(COLOURS))
    entries = rng.sample(rng.choice((FOODS, NAMES)), rng.randint(2, 4))
    ordered = rng.random() < 0.4
    size = rng.randint(19, 27)
    left = rng.randint(10, 26)
    ys = spread(canvas, len(entries) + 1, size, 6)
    title_box = canvas.text(left, ys[0], title, round(size * 1.35), colour=colour)
    read: list[Sentence] = [(f"The heading says {title} in {colour}.", (title_box,))]
    boxes, bullets = draw_list(canvas, entries, ys[1:], left, size, ordered)
    read += [
        (f"Entry {order} is {entry}.", (box,))
        for order, (entry, box) in enumerate(zip(entries, boxes, strict=True), start=1)
    ]
    kind: Sentence = (f"The entries have {'numbers' if ordered else 'bullets'}.", tuple(bullets))
    lines = list_html(entries, ordered)
    return canvas, [
        Question(
            "Write the HTML of this page.",
            (*read, kind),
            "\n".join(("<body>", heading_html(title, colour), *lines, "</body>")),
        ),
        Question("Write the HTML of the list.", (*read[1:], kind), "\n".join(lines)),
        Question("Write the HTML of the heading.", (read[0],), heading_html(title, colour)),
    ]


def plot(rng: Random) -> tuple[Canvas, list[Question]]:
    """A bar or line chart, to be plotted again."""
    canvas = Canvas(rng, grids=((8, 8), (8, 8), (9, 8), (10, 8), (10, 10), (12, 7)))
    kind = rng.choice(("bar", "line"))
    labels, values, boxes, colour = chart(canvas, kind)
    noun = "Bar" if kind == "bar" else "Point"
    read: list[Sentence] = [
        (f"{noun} {order} is {label} with {value}.", (box,))
        for order, (label, value, box) in enumerate(zip(labels, values, boxes, strict=True), start=1)
    ]
    function = "bar" if kind == "bar" else "plot"
    names = ", ".join(f'"{label}"' for label in labels)
    numbers = ", ".join(map(str, values))
    pairs = ", ".join(f'"{label}": {value}' for label, value in zip(labels, values, strict=True))
    mark: Sentence = (f"The {'bars are' if kind == 'bar' else 'line is'} {colour}.", tuple(boxes))
    code = f'labels = [{names}]\nvalues = [{numbers}]\nplt.{function}(labels, values, color="{colour}")'
    return canvas, [
        Question("Write the plotting code of this chart.", (*read, mark), code),
        Question("Write the data of this chart as a Python dict.", tuple(read), f"data = {{{pairs}}}"),
        Question("Write the values of this chart as a Python list.", tuple(read), f"values = [{numbers}]"),
    ]


KINDS = {"page": page, "listing": listing, "plot": plot}
