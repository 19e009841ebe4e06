"""The validation of numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from batchify._core.limits import number, positive
from tests.kit.errors import message_of


@pytest.mark.parametrize("value", [3, -2.5, Fraction(1, 2), 0])
def test_a_number_may_be_any_finite_one(value):
    """Integers, floats and other real numbers become a float."""
    assert (float(value), float) == (number("priority", value), type(number("priority", value)))


@pytest.mark.parametrize("value", [True, "3", None, 1j], ids=repr)
def test_a_value_that_is_no_number_is_refused(value):
    """The error names the option, the value and its type."""
    expected = f"priority must be a number, got {value!r} of type {type(value).__name__}"
    assert expected == message_of(TypeError, number, "priority", value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400], ids=["inf", "-inf", "nan", "huge"])
def test_an_infinite_number_is_refused(value):
    """Infinite numbers, NaN and numbers above any float are out of range."""
    expected = f"priority must be a finite number, got {value!r}"
    assert expected == message_of(ValueError, number, "priority", value)


@pytest.mark.parametrize(
    "value", [0, -1.0, math.inf, math.nan, Fraction(1, 2**2000)], ids=["0", "-1", "inf", "nan", "tiny"]
)
def test_a_number_that_is_not_positive_is_refused(value):
    """The error names the option, the rule and the value."""
    expected = f"max_weight must be a finite number above 0, got {value!r}"
    assert expected == message_of(ValueError, positive, "max_weight", value)


def test_a_zero_of_numpy_is_not_positive():
    """NumPy compares a number of few digits with one that it has rounded to as few."""
    zero = pytest.importorskip("numpy").float32(0)
    assert "max_weight must be a finite number above 0" in message_of(ValueError, positive, "max_weight", zero)
