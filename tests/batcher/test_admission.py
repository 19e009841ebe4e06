"""Weights, groups and tokens of calls, computed before a call is queued, and their errors."""

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
    """Return a configuration whose other options are off."""
    return Config(**{**OFF, **options})


def entry_of(row, **options):
    """Return the queue entry of a row."""
    return entry_factory(config(**options))(row)


def refusal(kind, row=1, **options):
    """Return the error message of a refused call."""
    return message_of(kind, entry_of, row, **options)


def weighing(weight):
    return {"weigh": lambda row: weight, "max_weight": 10.0}


def test_plain_calls_use_the_plain_queue():
    """Without these options, items are queued as they are, in the plain queue."""
    assert (None, PlainQueue) == (entry_factory(config()), type(make_queue(config())))


@pytest.mark.parametrize(
    "options",
    [{"group_by": len}, weighing(1), {"dedupe": True}, {"takes_requests": True}],
    ids=["group_by", "weigh", "dedupe", "takes_requests"],
)
def test_options_that_distinguish_calls_use_the_grouped_queue(options):
    """Each option that distinguishes calls uses the grouped queue."""
    assert GroupedQueue is type(make_queue(config(**options)))


def test_an_item_is_queued_with_its_context():
    """With ``capture_context`` alone, an item is queued together with the context of its caller."""
    variable = ContextVar("variable")
    variable.set("mine")
    item, context = entry_of(1, capture_context=True)
    assert (1, "mine") == (item, context[variable])
    assert 1 == item_of((item, context), config(capture_context=True))
    assert PlainQueue is type(make_queue(config(capture_context=True)))


def test_an_entry_may_have_a_context_and_a_token():
    """With ``capture_context`` and ``dedupe``, an entry has its item and a token for equal items."""
    entry = entry_of(1, capture_context=True, dedupe=True)
    assert 1 == item_of(entry.item, config(capture_context=True, dedupe=True))
    assert None is not entry.duplicate_of


def test_the_item_of_a_request_is_shown_without_options():
    """``item_of`` returns the item of a request, without its options."""
    assert 1 == item_of(Request(1, InternedKey("options")), config(takes_requests=True))


def test_equal_groups_share_one_token():
    """Items of equal groups have the same token; each set of options has groups of its own."""
    one, other = InternedKey("options"), InternedKey("other options")
    prepare = entry_factory(config(group_by=lambda item: item % 2, takes_requests=True))
    group = [prepare(Request(*row)).group for row in [(1, one), (3, one), (2, one), (1, other)]]
    assert group[0] is group[1]
    assert 3 == len(set(group))


def test_calls_with_the_same_options_form_a_group():
    """Without ``group_by``, calls with the same options form one group."""
    token = InternedKey("options")
    assert token is entry_of(Request(1, token), takes_requests=True).group


def test_all_items_form_one_group_by_default():
    """Without ``group_by`` or options of calls, all items form one group."""
    assert entry_of(1, dedupe=True).group is entry_of(2, dedupe=True).group


@pytest.mark.parametrize("weight", [0, 3, 2.5, True + 1, 10])
def test_a_weight_may_be_any_number_up_to_the_maximum(weight):
    """Integers and floats up to ``max_weight`` are valid weights."""
    assert float(weight) == entry_of(1, **weighing(weight)).weight


@pytest.mark.parametrize(
    ("weight", "kind"),
    [(True, "a bool"), ("3", "a str"), (None, "None"), (Decimal(1), "a Decimal"), (OSError(), "an OSError")],
)
def test_a_weight_that_is_no_number_is_refused(weight, kind):
    """Other weights raise ``TypeError`` to the caller."""
    expected = f"weigh of score() must return a number, got {kind}"
    assert expected == refusal(TypeError, **weighing(weight))


@pytest.mark.parametrize(("weight", "shown"), [(-1, "-1"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_negative_or_infinite_weight_is_refused(weight, shown):
    """A weight that is negative or not finite raises ``ValueError`` to the caller."""
    expected = f"weigh of score() must return a finite number of at least 0, got {shown}"
    assert expected == refusal(ValueError, **weighing(weight))


def test_an_item_above_the_maximum_weight_is_refused():
    """An item too heavy for any batch is refused; the error has the numbers and says what to do."""
    expected = "an item of score() weighs 10.5, more than max_weight, 10; split it, or raise max_weight"
    assert expected == refusal(ValueError, **weighing(10.5))


@pytest.mark.parametrize(("weight", "shown"), [(10.0000001, "10.0000001"), (1_048_577, "1048577")])
def test_the_error_shows_the_digits_that_matter(weight, shown):
    """The error shows enough digits to distinguish the weight from ``max_weight``."""
    assert f"weighs {shown}, more than max_weight, 10;" in refusal(ValueError, **weighing(weight))


def test_a_weight_above_any_float_is_refused():
    """A weight too large for a float is refused like any other weight above ``max_weight``."""
    assert "more than max_weight, 10; split it" in refusal(ValueError, **weighing(10**400))


def test_weigh_may_be_a_callable_that_is_false():
    """``weigh`` may be a callable object that is false, such as an empty container."""

    class Empty:
        def __len__(self):
            return 0

        def __call__(self, row):
            return 3

    assert 3.0 == entry_of(1, weigh=Empty(), max_weight=5.0).weight


def test_an_unhashable_group_is_refused():
    """A group that is not hashable raises ``TypeError`` to the caller; the error does not show the group."""
    expected = "group_by of score() must return something hashable, got a list"
    assert expected == refusal(TypeError, group_by=lambda row: ["private"])


def test_an_error_of_a_comparison_reaches_the_caller():
    """An exception from ``__eq__`` of a group is raised unchanged to the caller."""
    prepare = entry_factory(config(group_by=lambda row: row))
    kept = prepare(Incomparable())
    with pytest.raises(TypeError, match=r"^odd$"):
        prepare(Incomparable())
    assert kept


@pytest.mark.parametrize("option", ["group_by", "weigh"])
def test_an_error_of_weigh_or_group_by_reaches_the_caller(option):
    """An exception from ``weigh`` or ``group_by`` is raised unchanged to the caller."""

    def fail(row):
        raise KeyError(row)

    with pytest.raises(KeyError):
        entry_of(1, **{"max_weight": 1.0, option: fail})


def test_equal_items_share_one_token():
    """With ``dedupe``, equal hashable items share one token, and unhashable items have none."""
    prepare = entry_factory(config(dedupe=True))
    one, same, other, none = (prepare(row) for row in ("a", "a", "b", ["a"]))
    assert one.duplicate_of is same.duplicate_of
    assert one.duplicate_of is not other.duplicate_of
    assert None is none.duplicate_of


def test_items_are_hashed_only_for_dedupe():
    """Without ``dedupe``, items are not hashed."""
    assert None is entry_of(Incomparable(), **weighing(1)).duplicate_of
