"""One object for all equal keys. The caller tests equality once; from then on, keys are compared by identity.

Hashing and comparing keys is user code that may be slow, raise, or call back. Nothing is queued or locked meanwhile.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary


def is_hashable(value: Any) -> bool:
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
    def __init__(self) -> None:
        self._known: WeakValueDictionary[Any, InternedKey] = WeakValueDictionary()

    def get(self, key: Any) -> InternedKey:
        """Return the one object for ``key``. Two threads may get one each at its first use, as no lock is held."""
        interned = self._known.get(key)
        return self._known.setdefault(key, InternedKey(key)) if interned is None else interned
