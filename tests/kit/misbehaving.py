"""Items, results and options that fail when code touches them."""

from __future__ import annotations


class Untouchable:
    """Fails when it is compared, measured, shown, hashed or asked for an attribute."""

    def touched(self, *_):
        raise AssertionError

    __bool__ = __len__ = __eq__ = __ne__ = __lt__ = __repr__ = __str__ = __iter__ = __await__ = __contains__ = touched
    __getattr__ = __index__ = __format__ = __reduce_ex__ = __copy__ = touched
    __hash__ = None


class Incomparable:
    """Is hashable, and fails when it is compared."""

    def __hash__(self):
        return 1

    def __eq__(self, other):
        msg = "odd"
        raise TypeError(msg)
