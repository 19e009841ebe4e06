"""The options of a batch function: what a call may choose beside its items.

Decides: which choices are the same.
Must not know: columns, engines.
"""

from __future__ import annotations

from inspect import Parameter
from typing import TYPE_CHECKING, Any

from batchify._batcher.interning import InternedKey, Interner, is_hashable

if TYPE_CHECKING:
    from collections.abc import Iterator


class CallOptions:
    """The choices that calls of a function may make.

    Args:
        parameters: the options, in the order of the signature.
        name: what the function is called in errors.
    """

    __slots__ = ("_keys", "_name", "_parameters")

    def __init__(self, parameters: list[Parameter], name: str) -> None:
        self._parameters = parameters
        self._name = name
        self._keys = Interner()

    @property
    def names(self) -> list[str]:
        """The names of the options."""
        return [parameter.name for parameter in self._parameters]

    def key_of(self, values: tuple[Any, ...]) -> InternedKey:
        """Return the token of a choice, given the value of each option: the same one for equal values.

        Raises:
            TypeError: a value is not hashable.
        """
        if self._parameters and self._parameters[-1].kind is Parameter.VAR_KEYWORD:
            values = (*values[:-1], tuple(sorted(values[-1].items())))
        try:
            return self._keys.get(values)
        except TypeError:
            for name, value in self._named(values):
                _check_hashable(self._name, name, value)
            raise

    def arguments(self, token: InternedKey) -> tuple[list[Any], dict[str, Any]]:
        """Return a choice as positional and as keyword arguments."""
        values = [value.value if type(value) is UnhashableDefault else value for _, value in self._named(token.key)]
        first = sum(p.kind is Parameter.POSITIONAL_ONLY for p in self._parameters)
        names = [name for name, _ in self._named(token.key)]
        return values[:first], dict(zip(names[first:], values[first:], strict=True))

    def _named(self, values: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
        for parameter, value in zip(self._parameters, values, strict=True):
            if parameter.kind is Parameter.VAR_KEYWORD:
                yield from value
            else:
                yield parameter.name, value


class UnhashableDefault:
    """A default that is not hashable: calls that leave it alone are alike."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def as_default(default: Any) -> Any:
    """Return ``default``, or what stands for it if it is not hashable."""
    return default if is_hashable(default) else UnhashableDefault(default)


def _check_hashable(function: str, option: str, value: Any) -> None:
    if not is_hashable(value):
        msg = (
            f"{function}() tells by equal options which calls may share a batch, so they must be hashable; {option} is "
            f"of type {type(value).__name__}"
        )
        raise TypeError(msg)
