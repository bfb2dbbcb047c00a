"""Who is next: one generation at a time, clients in turn, verification behind all questions."""

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

    def __init__(self, places: int) -> None:
        self.places = places
        self._questions: dict[str, deque[Ticket]] = {}  # by client; the first is next
        self._patient: deque[Ticket] = deque()
        self._served: Ticket | None = None

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
        if self._served is not None:
            self.check_room(patient=patient)
        ticket = Ticket(self, client, patient=patient)
        (self._patient if patient else self._questions.setdefault(client, deque())).append(ticket)
        self._call()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        if ticket is self._served:
            self._served = None
            self._call()
        elif ticket.patient and ticket in self._patient:
            self._patient.remove(ticket)
        elif ticket in (own := self._questions.get(ticket.client, deque())):
            own.remove(ticket)
            if not own:
                del self._questions[ticket.client]

    def before(self, ticket: Ticket) -> int:
        if ticket is self._served:
            return 0
        order = self._order()
        return order.index(ticket) + (self._served is not None) if ticket in order else 0

    def _order(self) -> list[Ticket]:
        rounds = max(map(len, self._questions.values()), default=0)
        queues = self._questions.values()
        turns = [queue[number] for number in range(rounds) for queue in queues if number < len(queue)]
        return [*turns, *self._patient]

    def _call(self) -> None:
        """Calls the next one, if it is nobody's turn; a client that had its turn goes behind the others."""
        if self._served is not None:
            return
        if self._questions:
            client, queue = next(iter(self._questions.items()))
            self._served = queue.popleft()
            del self._questions[client]
            if queue:
                self._questions[client] = queue
        elif self._patient:
            self._served = self._patient.popleft()
        else:
            return
        if not self._served.called.done():
            self._served.called.set_result(None)
