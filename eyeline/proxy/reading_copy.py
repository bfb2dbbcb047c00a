"""Our copy of the model in its process: several traces are followed at once, each in a thread of its own."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from eyeline.elsewhere import Following, follow
from eyeline.errors import EyelineError
from eyeline.estimator_files import ATTENTION
from eyeline.events import Reason
from eyeline.generation import end_tokens
from eyeline.proxy.fixed_size import fixed_size
from eyeline.proxy.tiers import TIERS, Tier, Tokens, difference, notice
from eyeline.server.engine import Worker, pictures_in


class CopyWorker(Worker):
    """Follows beside the jobs of every engine."""

    AT_ONCE = (*Worker.AT_ONCE, "follow", "push", "fit")  # to follow is only begun there

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        self.tiers: dict[int, Tier] = {}  # of the traces that are followed, by their jobs

    def do(self, job: dict[str, Any]) -> None:
        if job["op"] == "push":  # nobody waits for an answer
            self.push(job["of"], job["part"])
        elif job["op"] == "follow":
            threading.Thread(target=super().do, args=(job,), daemon=True).start()
        else:
            super().do(job)

    def do_fit(self, number: int, size: tuple[int, int]) -> dict[str, Any]:
        """The size that images of this size are sent on in."""
        return {"size": fixed_size(self.model, size)}

    def do_follow(
        self,
        number: int,
        folder: str,
        images: int,
        messages: Sequence[Any],
        regions: str,
        tier: str,
        prompt_ids: Sequence[int] | None,
    ) -> dict[str, Any]:
        """A trace that is written elsewhere; after its first event its parts come by `push`, the last of them with an `end`."""
        try:
            with (
                follow(
                    self.model, pictures_in(folder, images), messages, prompt_ids=prompt_ids, notices=[notice(tier)],
                    estimator=self.estimator or ATTENTION, regions=regions,
                ) as events,
                self.on(number, events),
            ):  # fmt: skip
                opened = self.model.prompt_opens_thinking(events.prompt_ids)
                with self.changing:
                    self.tiers[number] = TIERS[tier](self.model, self.vocabulary, opened)
                return self.tell(number, events, folder)
        finally:
            with self.changing:
                self.tiers.pop(number, None)

    def push(self, number: int, part: Mapping[str, Any]) -> None:
        """Hands a part on; a trace that cannot be followed any further ends there, and one that has ended takes none."""
        with self.changing:
            events, tier = self.streams.get(number), self.tiers.get(number)
        if not isinstance(events, Following) or tier is None or events.finished:
            return
        try:
            if (end := part.get("end")) is None:
                tokens = tier.read(part)
                events.push(tokens.ids, tokens.log_probs)
            else:
                self.finish(events, tier.finish(), end)
        except EyelineError as error:
            events.finish("error", str(error))

    def finish(self, events: Following, rest: Tokens, end: Mapping[str, Any]) -> None:
        """`end` holds `finish`, what the server says of the end, `message`, what failed, and what it tells only then: all
        its ids (`exact`) and those of its prompt."""
        events.push(rest.ids, rest.log_probs)
        message, exact, prompt_ids = end["message"], end["exact"], end["prompt_ids"]
        if prompt_ids is not None and prompt_ids != events.prompt_ids[0].tolist():
            message = message or (
                f"The server's prompt is not the one that our copy has read: {len(prompt_ids)} tokens there, "
                f"{events.prompt_ids.shape[1]} here; the numbers are of ours."
            )
        if exact is not None:
            read = events.pushed
            if exact[: len(read)] == read:
                events.push(exact[len(read) :])  # an end token has no bytes
            else:
                message = message or difference(read, exact)
        events.finish(self.reason(end["finish"], events.pushed), message)

    def reason(self, finish: str, ids: Sequence[int]) -> Reason:
        if finish in ("error", "cancelled", "length"):
            return finish  # pyright: ignore[reportReturnType]
        return "eos" if ids and ids[-1] in end_tokens(self.model.hf.generation_config) else "stop"
