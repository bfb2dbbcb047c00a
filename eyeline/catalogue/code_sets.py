"""WebSight, ChartMimic, Design2Code, Plot2Code. Code is parsed and compared, never run: no picture is drawn of it."""

from eyeline.catalogue.entry import LeftOut, PublicSet, Question, Row, text_of
from eyeline.catalogue.shown import picture_of
from eyeline.examples import Matching

PAGE = "Write one HTML file, with its CSS inside, that looks like this page. Answer with the code alone."
PLOT = "Write Python code that draws this plot with matplotlib. Answer with the code alone."
NOT_RUN = "Its own scores draw what the code says, or ask a judge model; neither is done here."


def _page(row: Row) -> Question:
    return Question(PAGE, text_of(row, "text"), Matching("markup"))


def _plot(row: Row) -> Question:
    return Question(PLOT, text_of(row, "code"), Matching("python"))


def _mimic(row: Row) -> Question:
    prompt, code = text_of(row, "Instruction"), text_of(row, "GroundTruthFigureCode")
    if not code:
        raise LeftOut("without code")
    if "{width}" in prompt:  # inches, at matplotlib's 100 pixels
        picture = picture_of(row["InputFigurePreview"])
        width, height = (0, 0) if picture is None else picture.size
        prompt = prompt.replace("{width}", f"{width / 100:.1f}").replace("{height}", f"{height / 100:.1f}")
    return Question(prompt, code, Matching("python"))


MARKUP = "mean F1 of elements and of words (ours; the set's own draws the page)"
PYTHON = (
    "mean F1 of called names and of values, 0 where it does not parse (ours; the set's own runs the code)"
)

SETS = (
    PublicSet(
        name="websight",
        family="code",
        hub=("HuggingFaceM4/WebSight",),
        split="train",
        configs=("v0.2",),
        rows=1_920_000,
        columns=("image", "text"),
        images=("image",),
        licence="CC BY 4.0",
        rule=MARKUP,
        read=_page,
        large=True,
        note=f"It has one split and no score of its own; the prompt is ours. {NOT_RUN}",
    ),
    PublicSet(
        name="chartmimic",
        family="code",
        hub=("ChartMimic/ChartMimic",),
        split="test",
        configs=("chartmimic",),
        rows=None,
        columns=("Instruction", "InputFigurePreview", "GroundTruthFigureCode"),
        images=("InputFigurePreview",),
        licence="Apache-2.0",
        rule=PYTHON,
        read=_mimic,
        note=f"Figures are its previews, not its PDFs. {NOT_RUN}",
    ),
    PublicSet(
        name="design2code",
        family="code",
        hub=("SALT-NLP/Design2Code-hf",),
        split="train",
        rows=484,
        columns=("image", "text"),
        images=("image",),
        licence="ODC-BY",
        rule=MARKUP,
        read=_page,
        note=f"The split called train is its test; the prompt is ours. {NOT_RUN}",
    ),
    PublicSet(
        name="plot2code",
        family="code",
        hub=("TencentARC/Plot2Code",),
        split="test",
        configs=("python_matplotlib",),
        rows=132,
        columns=("image", "code"),
        images=("image",),
        licence="Apache-2.0 by its card",
        rule=PYTHON,
        read=_plot,
        note=f"Of its languages matplotlib's; the prompt is ours. {NOT_RUN}",
    ),
)
