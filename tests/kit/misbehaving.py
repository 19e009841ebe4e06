"""Objects that raise when code compares or inspects them, for use as items, results and options."""

from __future__ import annotations


class Untouchable:
    """Raises when code compares, measures, prints or hashes it, or reads an attribute."""

    def fail(self, *_):
        raise AssertionError

    __bool__ = __len__ = __eq__ = __ne__ = __lt__ = __repr__ = __str__ = __iter__ = __await__ = __contains__ = fail
    __getattr__ = __index__ = __format__ = __reduce_ex__ = __copy__ = fail
    __hash__ = None


class Incomparable:
    """Is hashable, but raises when code compares it."""

    def __hash__(self):
        return 1

    def __eq__(self, other):
        msg = "odd"
        raise TypeError(msg)
