"""What drawn pages are made of: their headings, lists and buttons, in the image and as HTML."""

from collections.abc import Sequence

from eyeline.scenes.canvas import Box, Canvas


def heading_html(text: str, colour: str) -> str:
    return f'<h1 style="color:{colour}">{text}</h1>'


def button_html(text: str, colour: str) -> str:
    return f'<button style="background:{colour}">{text}</button>'


def list_html(entries: Sequence[str], ordered: bool) -> list[str]:
    tag = "ol" if ordered else "ul"
    return [f"<{tag}>", *(f"<li>{entry}</li>" for entry in entries), f"</{tag}>"]


def draw_list(
    canvas: Canvas, entries: Sequence[str], ys: Sequence[int], left: int, size: int, ordered: bool
) -> tuple[list[Box], list[Box]]:
    """Entries from the first of the heights `ys` on: the boxes of their words, and of their numbers or bullets."""
    boxes: list[Box] = []
    bullets: list[Box] = []
    for order, (entry, y) in enumerate(zip(entries, ys, strict=False), start=1):
        if ordered:
            bullet = canvas.text(left + 6, y, f"{order}.", size)
        else:
            bullet = (left + 8, y - 4, left + 16, y + 4)
            canvas.draw.ellipse(bullet, fill=canvas.ink)
            canvas.note("bullet", bullet)
        bullets.append(bullet)
        boxes.append(canvas.text(left + size + 16, y, entry, size, order=order))
    return boxes, bullets


def draw_button(
    canvas: Canvas, at: tuple[int, int], half: int, text: str, size: int, colour: str, order: int = 0
) -> Box:
    """A button with its left edge and its middle at `at`, `half` of its height above and below."""
    left, y = at
    width, _ = canvas.text_size(text, size)
    box: Box = (left, y - half, left + width + 24, y + half)
    canvas.draw.rounded_rectangle(box, radius=6, fill=canvas.paint(colour))
    canvas.note("button", box, order=order, colour=colour)
    canvas.text(left + 12, y, text, size, order=order, fill=(20, 20, 20))
    return box
