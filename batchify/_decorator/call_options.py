"""The options of a batch function: the arguments that a call may pass beside its item.

Decides: which calls pass the same options, and so may share a batch.
Must not know: columns, engines.
"""

from __future__ import annotations

from inspect import Parameter
from typing import TYPE_CHECKING, Any

from batchify._batcher.interning import InternedKey, Interner, is_hashable
from batchify._core.outcome import type_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator


class CallOptions:
    """The options of one batch function, in the order of its signature."""

    def __init__(self, parameters: list[Parameter], name: str) -> None:
        self.parameters = parameters
        self._name = name
        self._interner = Interner()
        # The default of each option that has one.
        self.defaults = {p.name: _hashable(p.default) for p in parameters if p.default is not p.empty}
        # The key of a call that passes no option; ``None`` if an option is required.
        self._all_defaults: InternedKey | None = None
        optional = {**self.defaults, **{p.name: () for p in parameters if p.kind is Parameter.VAR_KEYWORD}}
        if len(optional) == len(parameters):
            self._all_defaults = self._interner.get(tuple(optional[p.name] for p in parameters))

    def key_of(self, values: tuple[Any, ...]) -> InternedKey | None:
        """Return one key for equal values, ``None`` for the defaults. An unhashable value is a ``TypeError``."""
        if self.parameters[-1].kind is Parameter.VAR_KEYWORD:
            values = (*values[:-1], tuple(sorted(values[-1].items())))
        try:
            key = self._interner.get(values)
        except TypeError as error:
            for name, value in self._named(values):
                if not is_hashable(value):
                    msg = (
                        f"{self._name}() compares options to find the calls that may share a batch, so they must be "
                        f"hashable; {name} is {type_in_words(value)}"
                    )
                    raise TypeError(msg) from error
            raise
        return None if key is self._all_defaults else key

    def arguments(self, key: InternedKey) -> tuple[list[Any], dict[str, Any]]:
        """Return the values of ``key`` as positional and as keyword arguments."""
        named = list(self._named(key.key))
        values = [value.value if type(value) is UnhashableDefault else value for _, value in named]
        first = sum(p.kind is Parameter.POSITIONAL_ONLY for p in self.parameters)
        names = [name for name, _ in named]
        return values[:first], dict(zip(names[first:], values[first:], strict=True))

    def _named(self, values: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
        for parameter, value in zip(self.parameters, values, strict=True):
            if parameter.kind is Parameter.VAR_KEYWORD:
                yield from value
            else:
                yield parameter.name, value


class UnhashableDefault:
    """Wraps a default that is not hashable, so that calls that do not pass the option are equal."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _hashable(default: Any) -> Any:
    return default if is_hashable(default) else UnhashableDefault(default)
