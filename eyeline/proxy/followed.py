"""An answer that another server writes, from its first chunk to the last event of ours."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from eyeline.proxy.servers import Account
from eyeline.server.asking import Asking, Desk
from eyeline.server.engine import Engine, Message
from eyeline.server.line import Ticket
from eyeline.server.store import Log, Row


class Followed(Asking):
    """What the server tells of the trace is kept until the end, so that a copy that dies can be told again."""

    def __init__(
        self, row: Row, log: Log, ticket: Ticket, job: int, tier: str, prompt_ids: Sequence[int] | None
    ) -> None:
        super().__init__(row, log, ticket, job, prompt_ids or ())
        self.tier, self.read_there = tier, prompt_ids
        self.parts: list[dict[str, Any]] = []
        self.ended = False
        self._news = asyncio.Event()

    def push(self, *parts: dict[str, Any]) -> None:
        self.parts += parts
        self.ended = self.ended or any("end" in part for part in parts)
        self._news.set()

    async def pump(self, engine: Engine) -> None:
        """Tells the copy's process all parts, and those to come."""
        sent = 0
        while not (self.ended and sent == len(self.parts)):
            while sent == len(self.parts):
                self._news.clear()
                await self._news.wait()
            await engine.send(op="push", of=self.job, part=self.parts[sent])
            sent += 1


class FollowDesk(Desk):
    """Sees through what is asked of our own copy, and what it follows."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}

    async def fixed_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size that images of a size are sent on in. Raises `EngineRefusedError`, `EngineDiedError`."""
        if size not in self._sizes:
            width, height = (await self.engine.call("fit", size=size))["size"]
            self._sizes[size] = width, height
        return self._sizes[size]

    def open_followed(
        self,
        run: str,
        writer: Any,
        question: Mapping[str, Any],
        account: Account,
        client: str,
        *,
        saved: bool,
    ) -> Followed:
        """Begins to follow an answer whose tier is known. Raises `RequestError` where too many wait."""
        assert account.tier is not None, "the first part has come"
        self.check_open()
        log = self.store.add(run, writer, self.engine.about.name, question, saved=saved)
        try:
            ticket = self.line.enter(client)
        except BaseException:
            log.close()
            self.store.discard(run)
            raise
        row, job = self.store.get(run), self.engine.number()
        asking = Followed(row, log, ticket, job, account.tier, account.prompt_ids)
        self.begin(asking)
        return asking

    async def _messages(self, asking: Asking) -> AsyncIterator[Message]:
        if not isinstance(asking, Followed):
            async with aclosing(super()._messages(asking)) as messages:  # pyright: ignore
                async for message in messages:
                    yield message
            return
        question, pump = asking.row.question, None
        following = self.engine.stream(
            "follow",
            job=asking.job,
            folder=str(self.store.folder_of(asking.row)),
            images=asking.row.images,
            messages=question["messages"],
            regions=question["options"]["regions"],
            tier=asking.tier,
            prompt_ids=asking.read_there,
        )
        try:
            async with aclosing(following) as messages:  # pyright: ignore
                async for message in messages:
                    pump = pump or asyncio.create_task(asking.pump(self.engine))
                    yield message
        finally:
            if pump is not None:
                pump.cancel()
