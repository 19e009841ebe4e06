"""What a call asks for, found before anything is queued, and what is said when it cannot be found."""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import fields
from decimal import Decimal

import pytest

from batchify._batcher.admission import entry_factory, item_of, make_queue
from batchify._batcher.config import Config
from batchify._batcher.interning import InternedKey
from batchify._batcher.requests import Request
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue
from tests.kit.errors import message_of
from tests.kit.misbehaving import Incomparable

OFF = {**dict.fromkeys(field.name for field in fields(Config)), "max_size": 2, "concurrency": 1, "name": "score"}


def config(**options):
    """Return options of which those that are not under test are off."""
    return Config(**{**OFF, **options})


def place(row, **options):
    """Return the place of a row."""
    return entry_factory(config(**options))(row)


def refusal(kind, row=1, **options):
    """Return the message of the error of a call."""
    return message_of(kind, place, row, **options)


def weighing(weight):
    return {"weigh": lambda row: weight, "max_weight": 10.0}


def test_calls_that_are_all_alike_need_nothing():
    """Without options of this kind items stand in the line as they are."""
    assert (None, PlainQueue) == (entry_factory(config()), type(make_queue(config())))


@pytest.mark.parametrize(
    "options",
    [{"group_by": len}, weighing(1), {"dedupe": True}, {"takes_requests": True}],
    ids=["group_by", "weigh", "dedupe", "takes_requests"],
)
def test_calls_that_ask_for_more_need_groups(options):
    """Whatever may tell calls apart takes the core that can."""
    assert GroupedQueue is type(make_queue(config(**options)))


def test_only_the_context_is_kept():
    """With ``capture_context`` alone an item stands in the line together with the context of its caller."""
    variable = ContextVar("variable")
    variable.set("mine")
    item, context = place(1, capture_context=True)
    assert (1, "mine") == (item, context[variable])
    assert 1 == item_of((item, context), config(capture_context=True))
    assert PlainQueue is type(make_queue(config(capture_context=True)))


def test_the_context_is_kept_with_the_rest():
    """A place may have the context, too."""
    given = place(1, capture_context=True, dedupe=True)
    assert 1 == item_of(given.item, config(capture_context=True, dedupe=True))
    assert None is not given.duplicate_of


def test_the_item_of_a_call_with_options():
    """What is shown of a call is its item."""
    assert 1 == item_of(Request(1, InternedKey("options")), config(takes_requests=True))


def test_equal_groups_are_one():
    """Items of equal groups have the same token, others another; one set of options is a group of its own."""
    one, other = InternedKey("options"), InternedKey("other options")
    prepare = entry_factory(config(group_by=lambda item: item % 2, takes_requests=True))
    group = [prepare(Request(*row)).group for row in [(1, one), (3, one), (2, one), (1, other)]]
    assert group[0] is group[1]
    assert 3 == len(set(group))


def test_options_alone_are_a_group():
    """Without ``group_by`` calls with the same options are one group."""
    token = InternedKey("options")
    assert token is place(Request(1, token), takes_requests=True).group


def test_without_either_all_are_one_group():
    """What is only weighed or shared is in one group."""
    assert place(1, dedupe=True).group is place(2, dedupe=True).group


@pytest.mark.parametrize("weight", [0, 3, 2.5, True + 1, 10])
def test_a_weight_is_a_number(weight):
    """Whole and other numbers up to the most are taken."""
    assert float(weight) == place(1, **weighing(weight)).weight


@pytest.mark.parametrize("weight", [True, "3", None, Decimal(1)])
def test_a_weight_that_is_no_number(weight):
    """Something else is the caller's ``TypeError``."""
    expected = f"weigh of score() must return a number, got a {type(weight).__name__}"
    assert expected == refusal(TypeError, **weighing(weight))


@pytest.mark.parametrize(("weight", "shown"), [(-1, "-1"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_weight_out_of_range(weight, shown):
    """A negative or endless weight is the caller's ``ValueError``."""
    expected = f"weigh of score() must return a finite number of at least 0, got {shown}"
    assert expected == refusal(ValueError, **weighing(weight))


def test_an_item_that_is_too_heavy():
    """What could never leave is refused, with the numbers and what to do."""
    expected = "an item of score() weighs 10.5, more than max_weight, 10; split it, or raise max_weight"
    assert expected == refusal(ValueError, **weighing(10.5))


@pytest.mark.parametrize(("weight", "shown"), [(10.0000001, "10.0000001"), (1_048_577, "1048577")])
def test_an_item_that_is_a_little_too_heavy(weight, shown):
    """All digits are told that make the difference."""
    assert f"weighs {shown}, more than max_weight, 10;" in refusal(ValueError, **weighing(weight))


def test_an_item_that_is_heavier_than_any_float():
    """A weight beyond all floats is too heavy, like any other."""
    assert "more than max_weight, 10; split it" in refusal(ValueError, **weighing(10**400))


def test_what_is_asked_may_be_any_callable():
    """A function that is false, as an empty container with ``__call__`` is, is asked like any other."""

    class Empty:
        def __len__(self):
            return 0

        def __call__(self, row):
            return 3

    assert 3.0 == place(1, weigh=Empty(), max_weight=5.0).weight


def test_a_group_that_is_not_hashable():
    """A group that is not hashable is the caller's ``TypeError``, which does not show it."""
    expected = "group_by of score() must return something hashable, got a list"
    assert expected == refusal(TypeError, group_by=lambda row: ["private"])


def test_a_group_that_fails_to_compare():
    """What the ``__eq__`` of a group raises is the caller's as it is."""
    prepare = entry_factory(config(group_by=lambda row: row))
    kept = prepare(Incomparable())
    with pytest.raises(TypeError, match=r"^odd$"):
        prepare(Incomparable())
    assert kept


@pytest.mark.parametrize("option", ["group_by", "weigh"])
def test_what_the_users_function_raises(option):
    """What ``weigh`` or ``group_by`` raises is the caller's as it is."""

    def fail(row):
        raise KeyError(row)

    with pytest.raises(KeyError):
        place(1, **{"max_weight": 1.0, option: fail})


def test_equal_items_are_known_as_such():
    """With ``dedupe`` equal hashable items carry the same token, and what is not hashable none."""
    prepare = entry_factory(config(dedupe=True))
    one, same, other, none = (prepare(row) for row in ("a", "a", "b", ["a"]))
    assert one.duplicate_of is same.duplicate_of
    assert one.duplicate_of is not other.duplicate_of
    assert None is none.duplicate_of


def test_items_are_not_hashed_in_vain():
    """Without ``dedupe`` nobody asks an item for its hash."""
    assert None is place(Incomparable(), **weighing(1)).duplicate_of
