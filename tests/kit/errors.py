"""Access to the exact messages of exceptions."""

from __future__ import annotations

import pytest


def message_of(kind, call, *args, **kwargs):
    """Return the message of the exception that the call raises, which must be of exactly the type ``kind``.

    The message excludes the suggestion that some versions of Python append to a ``TypeError``.
    """
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    assert kind is caught.type
    return str(caught.value).partition(". Did you mean")[0]
