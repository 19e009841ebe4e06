"""The exceptions: their base classes and their messages."""

from __future__ import annotations

import pickle

import pytest

from batchify import errors

KINDS = {
    errors.BatchResultError: ValueError,
    errors.QueueFullError: errors.BatchifyError,
    errors.DeadlineError: TimeoutError,
    errors.BatcherClosedError: RuntimeError,
    errors.ReentrantCallError: RuntimeError,
    errors.BatchAbortedError: RuntimeError,
}


def test_every_error_is_in_the_table():
    """The table above has every exception of the library."""
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.BatchifyError}
    assert set(KINDS) == kinds


@pytest.mark.parametrize("kind", KINDS)
def test_one_base_catches_all(kind):
    """Every error of the library is a ``BatchifyError``."""
    assert issubclass(kind, errors.BatchifyError)


@pytest.mark.parametrize(("kind", "builtin"), KINDS.items())
def test_errors_are_builtin_errors_too(kind, builtin):
    """Each error is a subclass of its class in the table, which is a builtin exception for most."""
    assert issubclass(kind, builtin)


def test_the_base_is_a_direct_subclass_of_exception():
    """``BatchifyError`` itself is no ``ValueError``, ``RuntimeError`` or ``OSError``."""
    assert (errors.BatchifyError, Exception, BaseException, object) == errors.BatchifyError.__mro__


@pytest.mark.parametrize("kind", [errors.BatchifyError, *KINDS])
def test_errors_can_be_pickled(kind):
    """A pickled error keeps its message."""
    assert repr(kind("too late")) == repr(pickle.loads(pickle.dumps(kind("too late"))))  # noqa: S301  # our own bytes


def test_the_error_of_a_closed_batcher_names_it():
    """The message for a call after ``close()`` names the batcher."""
    assert "embed is closed and takes no more calls until it is opened again" == errors.closed("embed")


def test_the_error_of_a_reentrant_call_says_what_to_do():
    """The message for a batch function that calls its own one-item form names the alternative."""
    expected = (
        "embed() was called with one item from inside its own batch, and would wait for itself; "
        "call the batch function with a list instead: embed.__wrapped__([item])"
    )
    assert expected == errors.reentrant("embed")
