"""How clients ask."""

from collections import Counter
from random import Random

from eyeline.training.manners import some_manner


def test_clients_ask_in_every_order_with_and_without_a_system_prompt():
    manners = [some_manner(Random(seed)) for seed in range(300)]
    orders = Counter((each.text_first, bool(each.system)) for each in manners)
    assert min(orders.values()) > 40
    assert len({each.system for each in manners}) > 50
    assert sum(each.system == "You are a helpful assistant." for each in manners) > 30
