"""Who is next: one generation at a time, or a few, clients in turn, verification behind all questions."""

import asyncio
from collections import deque

from eyeline.server.request_error import RequestError


class Ticket:
    """A place in the line. `turn` waits for it, `leave` gives it up, whether it has come or not."""

    def __init__(self, line: "Line", client: str, *, patient: bool) -> None:
        self.line, self.client, self.patient = line, client, patient
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def turn(self) -> None:
        await asyncio.shield(self.called)

    @property
    def before(self) -> int:
        """How many go before it, the one whose turn it is included."""
        return self.line.before(self)

    def leave(self) -> None:
        self.line.leave(self)


class Line:
    """A line of bounded length. Questions go before the patient, and among questions clients take turns."""

    def __init__(self, places: int, at_once: int = 1) -> None:
        self.places, self.at_once = places, at_once  # that may wait, and that may be served
        self._questions: dict[str, deque[Ticket]] = {}  # by client; the first is next
        self._patient: deque[Ticket] = deque()
        self._served: set[Ticket] = set()

    def __len__(self) -> int:
        return sum(map(len, self._questions.values()))

    def check_room(self, *, patient: bool = False) -> None:
        """Raises a `RequestError` where the line is full."""
        if (len(self._patient) if patient else len(self)) >= self.places:
            raise RequestError(
                429,
                "queue_full",
                f"{self.places} requests wait already; come back in a few seconds.",
                headers={"Retry-After": "5"},
            )

    def enter(self, client: str, *, patient: bool = False) -> Ticket:
        if self._full:
            self.check_room(patient=patient)
        ticket = Ticket(self, client, patient=patient)
        (self._patient if patient else self._questions.setdefault(client, deque())).append(ticket)
        self._call()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        if ticket in self._served:
            self._served.remove(ticket)
            self._call()
        elif ticket.patient and ticket in self._patient:
            self._patient.remove(ticket)
        elif ticket in (own := self._questions.get(ticket.client, deque())):
            own.remove(ticket)
            if not own:
                del self._questions[ticket.client]

    def before(self, ticket: Ticket) -> int:
        if ticket in self._served:
            return 0
        order = self._order()
        return order.index(ticket) + len(self._served) if ticket in order else 0

    @property
    def _full(self) -> bool:
        return len(self._served) >= self.at_once

    def _order(self) -> list[Ticket]:
        rounds = max(map(len, self._questions.values()), default=0)
        queues = self._questions.values()
        turns = [queue[number] for number in range(rounds) for queue in queues if number < len(queue)]
        return [*turns, *self._patient]

    def _call(self) -> None:
        """Calls the next one, if there is room; a client that had its turn goes behind the others."""
        if self._full:
            return
        if self._questions:
            client, queue = next(iter(self._questions.items()))
            ticket = queue.popleft()
            del self._questions[client]
            if queue:
                self._questions[client] = queue
        elif self._patient:
            ticket = self._patient.popleft()
        else:
            return
        self._served.add(ticket)
        if not ticket.called.done():
            ticket.called.set_result(None)
