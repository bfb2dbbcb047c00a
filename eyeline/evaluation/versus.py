"""How far methods are ahead of one of them, or behind it, in LDS, R2 and top-5 drop: paired, with 95 % intervals over images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eyeline import metrics
from eyeline.evaluation.evaluate import Evaluated
from eyeline.evaluation.table import Measure, by_image, correlations, groups, top_drop


@dataclass(frozen=True, slots=True)
class Difference:
    """A method's mean less that of `versus`, over the `count` images that both were evaluated on. None: too few for one."""

    method: str
    versus: str
    metric: str
    at: str  # rate, or number of regions
    family: str  # or "mean" of them
    value: float
    low: float | None
    high: float | None
    count: int

    @property
    def verdict(self) -> str:
        """What the interval says of the sign; nothing without one."""
        if self.low is None or self.high is None:
            return ""
        return "ahead" if self.low > 0 else "behind" if self.high < 0 else "undecided"


def differences(images: Sequence[Evaluated], versus: str) -> Iterator[Difference]:
    """Of every other method, by family and in the mean, families weighing the same.

    Methods are evaluated on the same spans, so that each image gives one difference, and whole images are drawn again: what makes
    an image hard for both cancels, as it does not between two methods' own intervals (paired bootstrap, Koehn 2004, W04-3250).
    """
    for name in images[0].effects if images else ():
        both = zip(_compared(images, name), _compared(images, versus), strict=True)
        for (metric, at, measure), (_, _, other) in both if name != versus else ():
            ours, theirs = by_image(images, measure), by_image(images, other)
            values = {
                family: [one - two for one, two in zip(ours[family], theirs[family], strict=True)] for family in ours
            }  # fmt: skip
            for family, some in groups(values).items():
                count = sum(map(len, some.values()))
                yield Difference(name, versus, metric, at, family, *metrics.bootstrap(some), count)


def _compared(images: Sequence[Evaluated], name: str) -> Iterator[Measure]:
    yield from correlations(images, name)
    yield top_drop(name, 5)
