"""How far the log-probs that another server tells are from ours: whether it is the same model on the same input."""

from collections.abc import Sequence
from dataclasses import dataclass

from eyeline.events import Agreement

FAR = 0.3  # nats in the mean: other kernels differ by less, text and image being the same
ENOUGH = 32  # tokens before anything is said


@dataclass(eq=False)
class Comparison:
    """Of the tokens of one trace so far."""

    tokens: int = 0
    total: float = 0.0  # of the sizes of the differences, nats
    worst: float = 0.0
    said: bool = False

    def add(self, theirs: Sequence[float | None], ours: Sequence[float]) -> None:
        """Log-probs of the same tokens; None where the server tells none."""
        for one, other in zip(theirs, ours, strict=True):
            if one is not None:
                difference = abs(one - other)
                self.tokens += 1
                self.total += difference
                self.worst = max(self.worst, difference)

    @property
    def result(self) -> Agreement | None:
        """None where nothing could be compared."""
        if not self.tokens:
            return None
        return Agreement(round(self.total / self.tokens, 5), round(self.worst, 5), self.tokens)

    def alarm(self) -> str | None:
        """A sentence, the first time that the two are too far apart to be the same."""
        if self.said or self.tokens < ENOUGH or self.total / self.tokens <= FAR:
            return None
        self.said = True
        return (
            f"The server's log-probs are {self.total / self.tokens:.2f} nats from ours in the mean of {self.tokens} "
            "tokens, so it runs other weights, or on another input: the numbers are our copy's; load the same weights, "
            "and send the same image."
        )
