"""A batch: its callers that leave, and its parts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from batchify._core.batch import Batch


def new(items="abcd", callers=None, reason="full", **others):
    """Return a batch with an item for each letter, of callers named by capitals, and with other attributes."""
    callers = callers or items.upper()
    batch = Batch([*items], [*callers], [float(n) for n in range(len(callers))], reason, 8, 9.0)
    vars(batch).update(others)
    return batch


def parts_of(batch):
    """Return the halves of a batch, as items and waiters."""
    return [("".join(part.items), "".join(part.waiters)) for part in batch.halves()]


def test_a_batch_with_an_open_caller_is_not_abandoned():
    """A batch is not abandoned while any caller wants its answer, whichever others have left."""
    assert [False] * 4 == [new().is_abandoned(waiter.__eq__) for waiter in "ABCD"]


def test_a_batch_without_an_open_caller_is_abandoned():
    """A batch is abandoned when all of its callers have left."""
    assert new().is_abandoned(lambda waiter: False)


def test_a_dropped_caller_does_not_keep_a_batch():
    """A batch is abandoned by the callers that were there when it ran."""
    batch = new()
    batch.drop([False, True, True, False])
    assert batch.is_abandoned({"B", "C"}.__contains__)


@pytest.mark.parametrize("order", ["ABCD", "DCBA", "BDAC"])
def test_a_caller_that_has_left_is_asked_once(order):
    """If callers leave one after the other, in any order, each question asks at most one caller that is open."""
    batch, gone, asked = new(), set(), []

    def is_open(waiter):
        asked.append(waiter)
        return waiter not in gone

    found = []
    for waiter in order:
        gone.add(waiter)
        found.append(batch.is_abandoned(is_open))
    assert [False, False, False, True] == found
    assert 2 * len(order) - 1 >= len(asked)


def test_a_dropped_caller_takes_its_item_along():
    """Items and weights of callers that left between departure and run are dropped, and the others keep their order."""
    batch = new(weights=[1.0, 2.0, 4.0, 8.0])
    batch.drop([False, True, False, True])
    assert (["a", "c"], ["A", "C"], [0.0, 2.0], 2, 5.0) == (
        batch.items,
        batch.waiters,
        batch.arrived,
        batch.size,
        batch.weight,
    )


def test_a_dropped_caller_takes_its_context_along():
    """The contexts of a batch are those of the remaining items."""
    batch = new()
    batch.contexts = tuple("1234")
    batch.drop([False, True, False, True])
    assert ("1", "3") == batch.contexts


def test_callers_dropped_after_others_left_abandon_no_open_caller():
    """A batch whose first callers have left, and are dropped only then, is not abandoned by the others."""
    batch = new("abcd")
    found = [batch.is_abandoned({"C", "D"}.__contains__)]
    batch.drop([True, True, False, False])
    found.append(batch.is_abandoned({"C", "D"}.__contains__))
    assert [False, False] == found


def test_a_shared_item_stays_until_its_last_caller_is_dropped():
    """An item that several callers share is dropped with the last of them."""
    batch = new("ab", "ABC", shares=[0, 1, 0])
    batch.drop([True, False, False])
    assert (["a", "b"], [1, 0]) == (batch.items, batch.shares)
    batch.drop([False, True])
    assert (["b"], [0]) == (batch.items, batch.shares)


def test_a_batch_has_two_halves():
    """The second half has one item more if their number is odd, and a single item has no halves."""
    expected = [[("a", "A"), ("bc", "BC")], [("ab", "AB"), ("cd", "CD")], []]
    assert expected == [parts_of(new(items)) for items in ("abc", "abcd", "a")]


def test_a_part_has_the_options_of_its_items():
    """A part has times, weights, contexts and shares of its own items, and the name, reason and departure of all."""
    batch = new("ab", "ABC", "weight", shares=[0, 1, 1], weights=[1.0, 2.0])
    batch.name, batch.contexts = "embed", ("context of a", "context of b")
    _, part = batch.halves()
    expected = (["B", "C"], [1.0, 2.0], [0, 0], 2.0, ("context of b",), "embed", "weight", 8, 9.0)
    found = (part.waiters, part.arrived, part.shares, part.weight, part.contexts)
    assert expected == (*found, part.name, part.reason, part.max_size, part.departed)


def test_the_parts_of_a_part_have_one_root():
    """The root of any part is the whole batch."""
    batch = new()
    assert [batch] * 3 == [some.root for some in (batch, batch.halves()[0], batch.halves()[0].halves()[1])]


def test_the_unfinished_part_is_the_end():
    """Parts run in order, so the end of the batch is unfinished; before the first part, it is the batch itself."""
    batch = new()
    whole = batch.unfinished
    batch.unanswered -= len(batch.halves()[0].waiters)
    assert (batch, ["C", "D"]) == (whole, batch.unfinished.waiters)


def test_a_caller_joins_a_running_batch():
    """A caller that shares the item of another one is answered with it, and has not waited."""
    batch = new("ab")
    batch.join("C", 1)
    assert ([*"ABC"], [0.0, 1.0, 9.0], [0, 1, 1]) == (batch.waiters, batch.arrived, [*batch.positions])
    assert (["a", "b"], 2, 3) == (batch.items, batch.size, batch.unanswered)


def test_a_batch_that_shares_items_takes_more_callers():
    """The callers that share items keep theirs when another one joins."""
    batch = new("ab", "ABC", shares=[1, 0, 1])
    batch.join("D", 0)
    assert [1, 0, 1, 0] == [*batch.positions]


def test_a_padded_batch_repeats_its_last_item():
    """The batch function gets a list of its own with padding, which is known."""
    batch = new("abc")
    batch.copy_items(2)
    batch.given.append("changed")
    assert ([*"abccc", "changed"], [*"abc"], 3, 2) == (batch.given, batch.items, batch.size, batch.padding)


def test_a_batch_teaches_the_cost_of_its_run():
    """The cost is learnt from the size with padding, the longest and the total length, and the run time."""
    learnt = []
    batch = new("abc", weights=[1.0, 4.0, 2.0])
    batch.copy_items(1)
    batch.learn(0.5)
    batch.run_cost = SimpleNamespace(learn=lambda *run: learnt.append(run))
    batch.learn(0.5)
    assert [(4, 4.0, 7.0, 0.5)] == learnt
