"""The options: which values are taken, and what is said of the others, word for word."""

from __future__ import annotations

import math
import sys
from dataclasses import FrozenInstanceError
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify._batcher.config import Config, flag, for_engine, function, text
from batchify._core.limits import positive, seconds, whole


class Index:
    """An integer of another library, as NumPy has them."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number

    def __repr__(self):
        return f"Index({self.number})"


class Options:
    """Somewhere for a method to be."""

    def embed(self, texts):
        return texts


def embed(texts):
    return texts


# What an engine class gets for what nobody asked for.
OFF = {
    "concurrency": 1,
    "max_pending": None,
    "on_full": "wait",
    "weigh": None,
    "max_weight": None,
    "group_by": None,
    "dedupe": False,
    "isolate_errors": False,
    "executor": None,
    "capture_context": False,
    "on_batch": None,
    "name": None,
}


def engine(batch_fn=embed, *, size=32, wait=0.002, **options):
    """Return the options of an engine class, all valid unless given otherwise."""
    return for_engine(batch_fn, size, wait, **{**OFF, **options})


def told(kind, ask, *args, **kwargs):
    """Return the message of the exception, of exactly this kind, that the call raises."""
    with pytest.raises(kind) as caught:
        ask(*args, **kwargs)
    assert kind is caught.type
    return str(caught.value)


@given(st.integers(min_value=1))
def test_whole_numbers_are_taken(number):
    """Every int of at least 1 is taken as it is."""
    assert number == whole("max_size", number)


@pytest.mark.parametrize("number", [8, Index(8)], ids=repr)
def test_what_is_an_integer_becomes_an_int(number):
    """An integer of another library becomes a plain int."""
    assert (int, 8) == (type(whole("max_size", number)), whole("max_size", number))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "True of type bool"),
        (False, "False of type bool"),
        (1.0, "1.0 of type float"),
        (math.nan, "nan of type float"),
        (math.inf, "inf of type float"),
        ("8", "'8' of type str"),
        (None, "None of type NoneType"),
        (Fraction(8), "Fraction(8, 1) of type Fraction"),
        (1j, "1j of type complex"),
    ],
)
def test_what_is_no_int_is_refused(value, shown):
    """What is no int is a ``TypeError`` that names the option, the value and its type, whatever its number may be."""
    assert f"max_size must be an int, got {shown}" == told(TypeError, whole, "max_size", value)


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (-1, "-1"), (Index(0), "Index(0)")])
def test_whole_numbers_begin_with_one(value, shown):
    """An int below 1 is a ``ValueError`` that names the option, the rule and the value."""
    assert f"concurrency must be at least 1, got {shown}" == told(ValueError, whole, "concurrency", value)


@given(
    st.floats(min_value=0, allow_infinity=False) | st.integers(0, 10**9) | st.fractions(min_value=0, max_value=10**9)
)
def test_spans_of_time_are_taken(value):
    """Every finite real number from 0 on is a span of time, and becomes a float."""
    assert (float, float(value)) == (type(seconds("timeout", value)), seconds("timeout", value))


def test_the_longest_span_of_time_is_taken():
    """The largest float is a finite number of seconds."""
    assert sys.float_info.max == seconds("timeout", sys.float_info.max)


def test_no_span_of_time_is_taken():
    """``None`` stays ``None``: it asks for adaptive timing."""
    assert None is seconds("timeout", None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "True of type bool"),
        (False, "False of type bool"),
        ("1", "'1' of type str"),
        (1j, "1j of type complex"),
        (Decimal(1), "Decimal('1') of type Decimal"),
        ([], "[] of type list"),
    ],
)
def test_what_is_no_number_is_no_span_of_time(value, shown):
    """What is no real number is a ``TypeError`` that names the option, the value and its type."""
    expected = f"timeout must be a number of seconds, or None to adapt, got {shown}"
    assert expected == told(TypeError, seconds, "timeout", value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-1, "-1"),
        (-1e-9, "-1e-09"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (Fraction(-1, 2), "Fraction(-1, 2)"),
    ],
)
def test_spans_of_time_are_finite_and_not_negative(value, shown):
    """A span that is negative, infinite or no number is a ``ValueError`` that names the option, the rule, the value."""
    expected = f"timeout must be a finite number of seconds, at least 0, got {shown}"
    assert expected == told(ValueError, seconds, "timeout", value)


def test_a_span_of_time_beyond_all_floats_is_refused():
    """An int that is larger than any float is out of range like infinity, and no ``OverflowError``."""
    expected = f"timeout must be a finite number of seconds, at least 0, got {10**400}"
    assert expected == told(ValueError, seconds, "timeout", 10**400)


@pytest.mark.parametrize("value", [True, False])
def test_flags_are_taken(value):
    """``True`` and ``False`` are taken as they are."""
    assert value is flag("capture_context", value)


@pytest.mark.parametrize(
    ("value", "shown"), [(1, "1 of type int"), (None, "None of type NoneType"), ([], "[] of type list")]
)
def test_what_is_no_flag_is_refused(value, shown):
    """What is neither ``True`` nor ``False`` is a ``TypeError`` that names the option, the value and its type."""
    assert f"capture_context must be True or False, got {shown}" == told(TypeError, flag, "capture_context", value)


@pytest.mark.parametrize("name", ["embed", "Model.embed", "größer", " "])
def test_names_are_taken(name):
    """Every string that is not empty is taken as it is."""
    assert name == text("name", name)


def test_what_is_no_string_is_no_name():
    """What is no string is a ``TypeError`` that names the option, the value and its type."""
    assert "name must be a str, got 8 of type int" == told(TypeError, text, "name", 8)


def test_a_name_says_something():
    """An empty string is a ``ValueError`` that names the option."""
    assert "name must not be empty" == told(ValueError, text, "name", "")


@pytest.mark.parametrize("value", [3, 2.5, Fraction(1, 2)])
def test_numbers_above_nothing_are_taken(value):
    """Every finite real number above 0 becomes a float; ``None`` stays ``None``."""
    assert (float, float(value)) == (type(positive("max_weight", value)), positive("max_weight", value))
    assert None is positive("max_weight", None)


def test_what_can_be_called_is_taken():
    """Anything that can be called is taken as it is, and so is ``None``."""
    assert (len, None) == (function("weigh", len), function("weigh", None))


def test_options_of_an_engine():
    """Size, wait and all other arguments of an engine class become the options of its core."""
    others = {
        "concurrency": 2,
        "max_pending": 9,
        "on_full": "raise",
        "weigh": len,
        "max_weight": 10.0,
        "group_by": len,
        "dedupe": True,
        "isolate_errors": True,
        "executor": None,
        "capture_context": True,
        "on_batch": print,
        "name": "vectors",
    }
    assert Config(max_size=8, timeout=0.5, **others) == engine(size=8, wait=0.5, **others)


def test_an_engine_may_adapt():
    """A wait of ``None`` stays ``None``."""
    assert None is engine(wait=None).timeout


@pytest.mark.parametrize(
    "fn", [embed, Options.embed, Options().embed], ids=["function", "function of a class", "method"]
)
def test_an_engine_is_called_like_its_function(fn):
    """Without a name an engine takes the qualified name of its batch function."""
    assert fn.__qualname__ == engine(fn).name


def test_an_engine_needs_something_to_call():
    """A batch function that can't be called is a ``TypeError`` that names the value."""
    assert "batch_fn must be callable, got 8" == told(TypeError, engine, 8)


@pytest.mark.parametrize(
    ("kind", "message", "options"),
    [
        (ValueError, "max_batch_size must be at least 1, got 0", {"size": 0}),
        (ValueError, "batch_wait_timeout_s must be a finite number of seconds, at least 0, got -1", {"wait": -1}),
        (ValueError, "concurrency must be at least 1, got 0", {"concurrency": 0}),
        (ValueError, "name must not be empty", {"name": ""}),
        (TypeError, "max_batch_size must be an int, got None of type NoneType", {"size": None}),
        (TypeError, "concurrency must be an int, got True of type bool", {"concurrency": True}),
        (TypeError, "capture_context must be True or False, got 1 of type int", {"capture_context": 1}),
        (TypeError, "name must be a str, got 0 of type int", {"name": 0}),
    ],
)
def test_an_engine_uses_the_names_of_its_arguments(kind, message, options):
    """An engine class speaks of its own arguments, not of those of the decorator."""
    assert message == told(kind, engine, **options)


def test_options_do_not_change():
    """Options that were validated can't be changed to something that was not."""
    with pytest.raises(FrozenInstanceError):
        engine().max_size = 0
