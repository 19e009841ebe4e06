"""The options: their defaults, their valid values, and the exact error messages for the others."""

from __future__ import annotations

import inspect
import math
import sys
from dataclasses import FrozenInstanceError
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify import AsyncMicrobatcher, SyncMicrobatcher, microbatch
from batchify._batcher.config import (
    CHANGEABLE,
    ENGINE_OPTIONS,
    OPTIONS,
    Config,
    config_of,
    engine_config,
    flag,
    function,
    text,
)
from batchify._batcher.options import Changes, EngineOptions, Options
from batchify._core.limits import positive, seconds, whole


class Index:
    """An integer of another library, as NumPy has them."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number

    def __repr__(self):
        return f"Index({self.number})"


class Model:
    def embed(self, texts):
        return texts


def embed(texts):
    return texts


def engine(batch_fn=embed, *, size=32, wait=0.002, **options):
    """Return the options of an engine class, with the defaults of its constructor."""
    return engine_config("SyncMicrobatcher", batch_fn, size, wait, options)


def message_of(kind, call, *args, **kwargs):
    """Return the message of the exception, of exactly this kind, that the call raises."""
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    assert kind is caught.type
    return str(caught.value)


@given(st.integers(min_value=1))
def test_positive_ints_are_valid(number):
    """Every int of at least 1 is valid and stays as it is."""
    assert number == whole("max_size", number)


@pytest.mark.parametrize("number", [8, Index(8)], ids=repr)
def test_an_integer_becomes_an_int(number):
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
def test_other_types_are_not_ints(value, shown):
    """A value of another type, even ``8.0``, is a ``TypeError`` that names the option, the value and its type."""
    assert f"max_size must be an int, got {shown}" == message_of(TypeError, whole, "max_size", value)


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (-1, "-1"), (Index(0), "Index(0)")])
def test_ints_below_one_are_refused(value, shown):
    """An int below 1 is a ``ValueError`` that names the option, the rule and the value."""
    assert f"concurrency must be at least 1, got {shown}" == message_of(ValueError, whole, "concurrency", value)


@given(
    st.floats(min_value=0, allow_infinity=False) | st.integers(0, 10**9) | st.fractions(min_value=0, max_value=10**9)
)
def test_seconds_are_valid(value):
    """Every finite real number of at least 0 is a valid number of seconds and becomes a float."""
    assert (float, float(value)) == (type(seconds("timeout", value)), seconds("timeout", value))


def test_the_largest_float_is_valid():
    """The largest float is a finite number of seconds."""
    assert sys.float_info.max == seconds("timeout", sys.float_info.max)


def test_seconds_may_be_none():
    """``None`` stays ``None``, which stands for adaptive timing."""
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
def test_other_types_are_not_seconds(value, shown):
    """A value that is not a real number is a ``TypeError`` that names the option, the value and its type."""
    expected = f"timeout must be a number of seconds, or None, got {shown}"
    assert expected == message_of(TypeError, seconds, "timeout", value)


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
def test_seconds_are_finite_and_not_negative(value, shown):
    """A negative, infinite or NaN number is a ``ValueError`` that names the option, the rule and the value."""
    expected = f"timeout must be a finite number of seconds, at least 0, got {shown}"
    assert expected == message_of(ValueError, seconds, "timeout", value)


def test_an_int_beyond_all_floats_is_refused():
    """An int larger than any float is out of range, like infinity, and not an ``OverflowError``."""
    expected = f"timeout must be a finite number of seconds, at least 0, got {10**400}"
    assert expected == message_of(ValueError, seconds, "timeout", 10**400)


@pytest.mark.parametrize("value", [True, False])
def test_flags_are_valid(value):
    """``True`` and ``False`` stay as they are."""
    assert value is flag("capture_context", value)


@pytest.mark.parametrize(
    ("value", "shown"), [(1, "1 of type int"), (None, "None of type NoneType"), ([], "[] of type list")]
)
def test_other_types_are_not_flags(value, shown):
    """Any other value is a ``TypeError`` that names the option, the value and its type."""
    expected = f"capture_context must be True or False, got {shown}"
    assert expected == message_of(TypeError, flag, "capture_context", value)


@pytest.mark.parametrize("name", ["embed", "Model.embed", "größer", " "])
def test_names_are_valid(name):
    """Every string that is not empty stays as it is."""
    assert name == text("name", name)


def test_other_types_are_not_names():
    """A value that is not a string is a ``TypeError`` that names the option, the value and its type."""
    assert "name must be a str, got 8 of type int" == message_of(TypeError, text, "name", 8)


def test_a_name_is_not_empty():
    """An empty string is a ``ValueError`` that names the option."""
    assert "name must not be empty" == message_of(ValueError, text, "name", "")


@pytest.mark.parametrize("value", [3, 2.5, Fraction(1, 2)])
def test_positive_numbers_are_valid(value):
    """Every finite real number above 0 becomes a float, and ``None`` stays ``None``."""
    assert (float, float(value)) == (type(positive("max_weight", value)), positive("max_weight", value))
    assert None is positive("max_weight", None)


def test_callables_are_functions():
    """Every callable stays as it is, and so does ``None``."""
    assert (len, None) == (function("weigh", len), function("weigh", None))


def test_the_defaults_of_a_config():
    """Without any option, the options are those of a ``Config`` with the qualified name of the batch function."""
    assert Config(name="embed") == config_of(embed, {})


def test_the_arguments_of_an_engine():
    """The size, the wait and all other arguments of an engine class become options."""
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


@pytest.mark.parametrize("fn", [embed, Model.embed, Model().embed], ids=["function", "function of a class", "method"])
@pytest.mark.parametrize("options", [{}, {"name": None}], ids=repr)
def test_an_engine_has_the_name_of_its_function(fn, options):
    """Without a name, or with ``None``, an engine has the qualified name of its batch function."""
    assert fn.__qualname__ == engine(fn, **options).name


def test_a_batch_function_is_callable():
    """A batch function that is not callable is a ``TypeError`` that names the value."""
    assert "batch_fn must be callable, got 8" == message_of(TypeError, engine, 8)


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
    """The errors of an engine class name its own arguments, not those of the decorator."""
    assert message == message_of(kind, engine, **options)


def test_options_do_not_change():
    """A ``Config`` is frozen, so its options stay valid."""
    with pytest.raises(FrozenInstanceError):
        engine().max_size = 0


@pytest.mark.parametrize(
    ("names", "types"), [(OPTIONS, Options), (ENGINE_OPTIONS, EngineOptions), (CHANGEABLE, Changes)]
)
def test_every_option_has_a_type(names, types):
    """Type checkers know the options that run time accepts, and no others."""
    assert set(names) == types.__optional_keys__


@pytest.mark.parametrize("taker", [microbatch, AsyncMicrobatcher, SyncMicrobatcher])
def test_a_signature_shows_every_option(taker):
    """``inspect.signature`` shows every option by name only, with its default."""
    parameters = inspect.signature(taker).parameters.values()
    shown = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    defaults = {**vars(Config(name="unused")), "name": None}
    names = OPTIONS if taker is microbatch else ENGINE_OPTIONS
    assert {name: defaults[name] for name in names} == shown


@pytest.mark.parametrize("taker", [AsyncMicrobatcher, SyncMicrobatcher])
def test_a_signature_shows_the_arguments_of_an_engine(taker):
    """The arguments of an engine class that have names of their own stand before its options."""
    assert ["batch_fn", "max_batch_size", "batch_wait_timeout_s"] == list(inspect.signature(taker).parameters)[:3]
