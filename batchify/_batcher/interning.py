"""One object for all equal keys, so that equality is asked for once, by the caller, and is identity from then on.

Must not know: what the keys are for.

Hashing and comparing keys is somebody else's code: it may be slow, raise, or call back. So it happens here, before
anything is queued or locked.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary


def is_hashable(value: Any) -> bool:
    """Say whether ``value`` can be part of a key."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


class InternedKey:
    """What stands for a key, and for all that are equal to it. It is forgotten when nobody holds it any more."""

    __slots__ = ("__weakref__", "key")

    def __init__(self, key: Any) -> None:
        self.key = key


class Interner:
    """The tokens that somebody holds."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakValueDictionary[Any, InternedKey] = WeakValueDictionary()

    def get(self, key: Any) -> InternedKey:
        """Return the token for ``key``, the same one for as long as somebody holds it.

        Two threads that are the first to ask at the very same moment may get one each, as no lock is held while the
        keys are compared.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        token = self._known.get(key)
        return self._known.setdefault(key, InternedKey(key)) if token is None else token
