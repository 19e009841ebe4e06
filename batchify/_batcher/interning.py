"""One object for all equal keys: equality is asked once, by the caller, and is identity from then on.

Hashing and comparing keys is user code, which may be slow, raise, or call back. It happens here, before anything is
queued or locked.
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
    """Stands for a key and all equal ones, for as long as anything refers to it."""

    __slots__ = ("__weakref__", "key")

    def __init__(self, key: Any) -> None:
        self.key = key


class Interner:
    """The interned keys that are referred to."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakValueDictionary[Any, InternedKey] = WeakValueDictionary()

    def get(self, key: Any) -> InternedKey:
        """Return the object for ``key``: the same one for as long as anything refers to it.

        Two threads that ask first at the same moment may get one each, because no lock is held while keys are compared.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        interned = self._known.get(key)
        return self._known.setdefault(key, InternedKey(key)) if interned is None else interned
