"""Science scenes: food chains with arrows, thermometers and beakers with a scale, simple circuits."""

from itertools import pairwise
from random import Random

from eyeline.scenes.canvas import COLOURS, Box, Canvas
from eyeline.scenes.lexicon import ANIMALS
from eyeline.scenes.question import Question, Sentence, ask

NATURAL = (
    ("grass", "rabbit", "fox"), ("grass", "mouse", "owl"), ("beetle", "frog", "snake", "hawk"),
    ("grass", "mouse", "snake", "hawk"), ("grass", "rabbit", "wolf"), ("beetle", "frog", "owl"),
)  # fmt: skip
PARTS = ("lamp", "cell", "switch", "bell", "resistor", "motor")
SIDES = ("top", "right", "bottom", "left")


def chain(rng: Random) -> tuple[Canvas, list[Question]]:
    """Animals joined by arrows, across or down, in either direction; often not who eats whom in nature."""
    canvas = Canvas(rng)
    natural = rng.random() < 0.25
    names = list(rng.choice(NATURAL)) if natural else rng.sample(ANIMALS, rng.randint(3, 4))
    across = canvas.width > 1.3 * canvas.height and len(names) == 3
    backwards = rng.random() < 0.4
    size = rng.randint(18, 22) if across else rng.randint(20, 30)
    count = len(names)
    boxes: list[Box] = []
    colour = rng.choice(("", *COLOURS))
    for order, name in enumerate(names, start=1):
        place = count - order if backwards else order - 1
        if across:
            x, y = canvas.width * (place + 0.5) / count, canvas.height * rng.uniform(0.4, 0.6)
        else:
            x, y = canvas.width * rng.uniform(0.4, 0.6), canvas.height * (place + 0.5) / count
        boxes.append(canvas.text(round(x), round(y), name, size, order=order, colour=colour, anchor="mm"))
        if rng.random() < 0.8:
            left, top, right, bottom = boxes[-1]
            canvas.draw.rounded_rectangle(
                (left - 6, top - 6, right + 6, bottom + 6), radius=6, outline=canvas.ink, width=2
            )
    arrows: list[Box] = []
    direction = ("left" if backwards else "right") if across else "up" if backwards else "down"
    for one, two in pairwise(boxes):
        if across:
            begin, end = min(one[2], two[2]) + 8, max(one[0], two[0]) - 8
            middle, half = (one[1] + one[3] + two[1] + two[3]) // 4, 9
            box = (begin, middle - half, max(begin + 10, end), middle + half)
        else:
            begin, end = min(one[3], two[3]) + 9, max(one[1], two[1]) - 9
            middle, half = (one[0] + one[2] + two[0] + two[2]) // 4, 10
            box = (middle - half, begin, middle + half, max(begin + 10, end))
        arrows.append(canvas.mark(direction, box))
    read: list[Sentence] = [
        (f"The arrows point {direction}.", tuple(arrows)),
        *(
            (f"Step {order} is the {name}.", (box,))
            for order, (name, box) in enumerate(zip(names, boxes, strict=True), start=1)
        ),
    ]
    at = rng.randrange(count - 1)
    here, there = names[at], names[at + 1]
    after = f"The {here} is step {at + 1}, so next is the {there}."
    before = f"The {there} is step {at + 2}, so before it is the {here}."
    prior = not natural
    return canvas, [
        ask(f"What comes after the {here}?", read, after, there, prior=prior),
        ask(f"What comes before the {there}?", read, before, here, prior=prior),
        ask(
            "Where does the chain start?",
            read,
            f"The chain starts with the {names[0]}.",
            names[0],
            prior=prior,
        ),
        ask(
            "Where does the chain end?", read, f"The chain ends with the {names[-1]}.", names[-1], prior=prior
        ),
    ]


def _scale(rng: Random, unit: str, tall: bool) -> tuple[Canvas, list[Question]]:
    """An upright vessel with a scale: numbers at every ten, ticks at every five, filled to a tick."""
    canvas = Canvas(rng, grids=((8, 8), (8, 8), (8, 9), (8, 10), (7, 12), (9, 9), (10, 10)))
    steps = rng.randint(3, 6)
    top_value = steps * 10
    value = 5 * rng.randint(1, 2 * steps - 1)
    colour = rng.choice(list(COLOURS))
    size = rng.randint(18, 26)
    width = rng.randint(20, 34) if tall else rng.randint(80, 130)
    left = rng.randint(16, canvas.width - width - size * 3)
    top, bottom = rng.randint(22, 40), canvas.height - rng.randint(20, 44)

    def height(reading: int) -> int:
        return round(bottom - (bottom - top) * reading / top_value)

    right = left + width
    level = height(value)
    canvas.draw.rectangle((left, level, right, bottom), fill=canvas.paint(colour))
    canvas.draw.line((left, top - 8, left, bottom, right, bottom, right, top - 8), fill=canvas.ink, width=3)
    if tall:
        canvas.draw.ellipse(
            (left - 6, bottom - 8, right + 6, min(canvas.height - 2, bottom + 16)), fill=canvas.paint(colour)
        )
    top_box = None
    for reading in range(0, top_value + 1, 5):
        y = height(reading)
        if reading % 10 == 0:
            canvas.draw.line((right, y, right + 12, y), fill=canvas.ink, width=2)
            box = canvas.text(right + 18, y, str(reading), size, order=1 if reading == top_value else 0)
            top_box = box
        else:
            canvas.draw.line((right, y, right + 6, y), fill=canvas.ink, width=2)
    # all of the vessel and its scale: what hides less shows the level by its own shape
    vessel = (
        left - 6,
        max(0, top - 12),
        min(canvas.width, right + 18 + size * 2),
        min(canvas.height, bottom + 16),
    )
    canvas.note("level", (left, level - 10, right, level + 10), order=2, colour=colour, number=value)
    assert top_box is not None
    read: list[Sentence] = [
        (f"The scale ends at {top_value}.", (top_box,)),
        (f"The level is at {value}.", (vessel,)),
    ]
    what = "temperature" if tall else "volume"
    left_over = top_value - value
    room = f"{top_value} minus {value} is {left_over}."
    return canvas, [
        Question(f"Which {what} does it show?", tuple(read), f"{value} {unit}"),
        ask(f"How many {unit} is the level below the top of the scale?", read, room, left_over),
        Question("Which colour is the liquid?", (read[1], (f"The liquid is {colour}.", (vessel,))), colour),
    ]  # fmt: skip


def thermometer(rng: Random) -> tuple[Canvas, list[Question]]:
    """A thermometer filled to a tick."""
    return _scale(rng, "degrees", tall=True)


def beaker(rng: Random) -> tuple[Canvas, list[Question]]:
    """A beaker filled to a tick."""
    return _scale(rng, "ml", tall=False)


def circuit(rng: Random) -> tuple[Canvas, list[Question]]:
    """A loop of wire with a part on each side; the cell carries a number."""
    canvas = Canvas(rng, grids=((8, 8), (8, 8), (9, 8), (8, 9), (10, 8), (10, 10), (9, 9)))
    parts = rng.sample(PARTS, 4)
    if "cell" not in parts:
        parts[rng.randrange(4)] = "cell"
    volts = rng.choice((3, 6, 9, 12, 15, 18, 24))
    size = rng.randint(18, 24)
    side = rng.randint(34, 46)
    left, top = rng.randint(40, 54), rng.randint(36, 50)
    right, bottom = canvas.width - rng.randint(40, 54), canvas.height - rng.randint(36, 50)
    canvas.draw.rectangle((left, top, right, bottom), outline=canvas.ink, width=3)
    centres = (
        ((left + right) // 2, top),
        (right, (top + bottom) // 2),
        ((left + right) // 2, bottom),
        (left, (top + bottom) // 2),
    )
    read: list[Sentence] = []
    volts_box = None
    for order, (name, where, (x, y)) in enumerate(zip(parts, SIDES, centres, strict=True), start=1):
        box = (x - side // 2, y - side // 2, x + side // 2, y + side // 2)
        canvas.draw.rectangle(box, fill=canvas.background)
        canvas.mark(name, box, order=order)
        read.append((f"At the {where} is a {name}.", (box,)))
        if name == "cell":
            half = side // 2
            inward = {
                "top": (x, y + half + size, "mm"),
                "bottom": (x, y - half - size, "mm"),
                "left": (x + half + 6, y + 2, "lm"),
                "right": (x - half - 6, y + 2, "rm"),
            }[where]
            volts_box = canvas.text(*inward[:2], f"{volts} V", size, order=5, anchor=inward[2])
    assert volts_box is not None
    at = rng.randrange(4)
    part, side_name, opposite = parts[at], SIDES[at], parts[at - 2]
    by_part: list[Sentence] = [
        (f"The {name} is the {where} part.", boxes)
        for name, where, (_, boxes) in zip(parts, SIDES, read, strict=True)
    ]
    across: list[Sentence] = [
        (f"The {parts[one]} faces the {parts[one - 2]}.", (*read[one][1], *read[one - 2][1]))
        for one in range(4)
    ]
    volts_read: Sentence = (f"The cell has {volts} volts.", (volts_box,))
    return canvas, [
        ask(f"Which part is opposite the {part}?", across, f"The {part} faces the {opposite}.", opposite),
        ask(f"Where is the {part}?", by_part, f"The {part} is the {side_name} part.", side_name),
        ask(f"Which part is at the {side_name}?", read, f"At the {side_name} is a {part}.", part),
        Question("How many volts has the cell?", (*read, volts_read), str(volts)),
    ]


KINDS = {"chain": chain, "thermometer": thermometer, "beaker": beaker, "circuit": circuit}
