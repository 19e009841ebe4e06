"""Errors, word for word."""

from __future__ import annotations

import pytest


def message_of(kind, call, *args, **kwargs):
    """Return the message of the exception, of exactly this kind, that the call raises.

    Some versions of Python add a suggestion to a ``TypeError``, which is left out.
    """
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    assert kind is caught.type
    return str(caught.value).partition(". Did you mean")[0]
