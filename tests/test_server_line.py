"""Turns in the line, without a server."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.server.line import Line
from eyeline.server.request_error import RequestError


def in_a_loop(test):
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    run.__name__ = test.__name__
    return run


async def served(line, tickets):
    """The order in which tickets come to their turn."""
    order = []
    while len(order) < len(tickets):
        (now,) = [ticket for ticket in tickets if ticket.called.done() and ticket not in order]
        order.append(now)
        now.leave()
    return order


@in_a_loop
async def test_one_at_a_time_in_order_of_arrival():
    line = Line(8)
    first, second, third = (line.enter("a") for _ in range(3))
    assert (first.before, second.before, third.before) == (0, 1, 2)
    assert [ticket.called.done() for ticket in (first, second, third)] == [True, False, False]
    assert await served(line, [first, second, third]) == [first, second, third]


@in_a_loop
async def test_clients_take_turns():
    line = Line(8)
    first, *busy = [line.enter("busy") for _ in range(4)]
    late = line.enter("late")
    assert late.before == 2
    assert await served(line, [first, *busy, late]) == [first, busy[0], late, busy[1], busy[2]]


@in_a_loop
async def test_verification_goes_behind_questions_that_come_later():
    line = Line(8)
    first = line.enter("a")
    patient = line.enter("a", patient=True)
    question = line.enter("b")
    assert await served(line, [first, patient, question]) == [first, question, patient]


@in_a_loop
async def test_a_full_line_refuses_and_a_place_that_is_left_is_free():
    line = Line(2)
    served_now, second, _ = (line.enter("a") for _ in range(3))
    with pytest.raises(RequestError) as caught:
        line.enter("b")
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    second.leave()
    line.enter("b")
    patient = [line.enter("a", patient=True) for _ in range(2)]
    with pytest.raises(RequestError):
        line.enter("a", patient=True)
    assert not any(ticket.called.done() for ticket in patient)
    served_now.leave()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=30))
def test_nobody_is_lost_and_never_are_two_served(moves):
    async def play():
        line = Line(100)
        waiting = []
        for client, patient, leaves in moves:
            waiting.append(line.enter(client, patient=patient))
            if leaves:
                waiting.pop(len(waiting) // 2).leave()
            assert sum(ticket.called.done() for ticket in waiting) == bool(waiting)
        assert len(await served(line, waiting)) == len(waiting)
        assert len(line) == 0

    asyncio.run(play())
