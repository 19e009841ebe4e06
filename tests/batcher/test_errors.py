"""The exceptions: what each of them can be caught as, and how they speak."""

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


def test_every_error_is_known_here():
    """No exception is without its entry in the table above."""
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.BatchifyError}
    assert set(KINDS) == kinds


@pytest.mark.parametrize("kind", KINDS)
def test_one_base_catches_all(kind):
    """Every error of the library is a ``BatchifyError``."""
    assert issubclass(kind, errors.BatchifyError)


@pytest.mark.parametrize(("kind", "builtin"), KINDS.items())
def test_errors_are_builtin_errors_too(kind, builtin):
    """Code that knows nothing of the library catches its errors by their builtin kind."""
    assert issubclass(kind, builtin)


def test_the_base_is_an_exception_and_no_more():
    """The base itself is no ``ValueError``, ``RuntimeError`` or ``OSError``, which would catch too much."""
    assert (errors.BatchifyError, Exception, BaseException, object) == errors.BatchifyError.__mro__


@pytest.mark.parametrize("kind", [errors.BatchifyError, *KINDS])
def test_errors_can_travel_to_other_processes(kind):
    """An error arrives in another process with its message."""
    assert repr(kind("too late")) == repr(pickle.loads(pickle.dumps(kind("too late"))))  # noqa: S301  # our own bytes


def test_a_closed_batcher_says_its_name():
    """The message for a call that comes too late names the batcher."""
    assert "embed is closed and takes no more calls" == errors.closed("embed")


def test_a_call_of_itself_says_what_to_do():
    """The message for a batch function that calls its own one-item form names another way."""
    expected = (
        "embed() was called with one item from inside its own batch, and would wait for itself; "
        "call the batch function with a list instead: embed.__wrapped__([item])"
    )
    assert expected == errors.reentrant("embed")
