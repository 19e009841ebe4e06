"""What a batch function looks like: its name, its kind, and the calls that its one-item form takes.

Decides: which parameter is the column that batches are made of, and which item a call carries.
Must not know: engines.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from inspect import Parameter, Signature
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)

# ``Any`` because a checker that is told the classes asks for the types of what is inside.
METHOD_KINDS: Any = (classmethod, staticmethod)


def name_of(fn: object) -> str:
    """Return the qualified name of a function, or of what is inside a partial, or of the type of a callable object."""
    if isinstance(fn, partial):
        return name_of(fn.func)
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__


def is_async(fn: object) -> bool:
    """Say whether calling ``fn`` returns a coroutine, for functions, partials and objects with ``__call__`` alike."""
    return any(map(inspect.iscoroutinefunction, _called(fn)))


def is_generator(fn: object) -> bool:
    """Say whether calling ``fn`` returns a generator, asynchronous or not."""
    return any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in _called(fn))


def _called(fn: object) -> tuple[Any, Any]:
    while isinstance(fn, partial):
        fn = fn.func
    return fn, getattr(type(fn), "__call__", None)  # noqa: B004  # wanted for what it is


class Call:
    """The one-item form of a batch function: its signature, and the item that a call carries.

    Parameters with a default keep it in every batch, and are no part of the one-item form.

    Args:
        fn: the batch function.
        name: what it is called in errors.
        bound: whether its first parameter is given already, as the instance is to a method.

    Raises:
        TypeError: no parameter can be the column, or a parameter without a default could never get a value.
    """

    __slots__ = ("_columns", "_fn", "_name", "_signature")

    def __init__(self, fn: Callable[..., Any], name: str, *, bound: bool = False) -> None:
        self._fn = fn
        self._name = name
        self._signature: Signature | None = None
        parameters = _parameters(fn)[1:] if bound else _parameters(fn)
        required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        for parameter in required:
            if parameter.kind not in POSITIONAL:
                msg = (
                    f"{name}() has {parameter}, which is no column; give it one parameter by name for the list of items"
                )
                raise TypeError(msg)
        if not required:
            msg = f"{name}() has no column: give it a parameter without a default for the list of items"
            raise TypeError(msg)
        self._columns = [p.name for p in required]

    @property
    def signature(self) -> Signature:
        """The signature of the one-item form: an item for the list of items, a result for the results."""
        if self._signature is None:
            signature = _evaluated(self._fn)
            parameters = [
                p.replace(annotation=_element(p.annotation))
                for p in signature.parameters.values()
                if p.name in self._columns
            ]
            self._signature = Signature(parameters, return_annotation=_element(signature.return_annotation))
        return self._signature

    def takes_instance(self, args: tuple[Any, ...]) -> bool:
        """Say whether a call has one argument more than an item, as that of a method through its class has."""
        return len(self._columns) > 1 and bool(args)

    def item(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the item that a call with these arguments carries.

        Raises:
            TypeError: they do not fit, as with any Python function.
        """
        if len(args) == 1 and not kwargs and len(self._columns) == 1:
            return args[0]
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            msg = f"{self._name}() {error}"
            raise TypeError(msg) from None
        if len(self._columns) > 1:
            msg = f"{self._name}() takes one list of items, and has {len(self._columns)} parameters without a default"
            raise TypeError(msg)
        (item,) = bound.arguments.values()
        return item


def _parameters(fn: Callable[..., Any]) -> list[Parameter]:
    return list(_signature_of(fn).parameters.values())


def _evaluated(fn: Callable[..., Any]) -> Signature:
    """Return the signature with annotations as types where their names can be found."""
    try:
        return _signature_of(fn, eval_str=True)
    except Exception:  # noqa: BLE001  # evaluating somebody's annotation may raise anything
        return _signature_of(fn)


def _signature_of(fn: Callable[..., Any], *, eval_str: bool = False) -> Signature:
    try:
        signature = inspect.signature(fn, eval_str=eval_str)
    except ValueError:
        # A builtin that does not tell: it can only be called by position.
        return Signature([Parameter("items", Parameter.POSITIONAL_ONLY)])
    parameters = list(signature.parameters.values())
    # Compiled methods may count the instance that they are bound to, as those of the package tokenizers do.
    if isinstance(fn, BuiltinMethodType) and "self" in signature.parameters:
        return signature.replace(parameters=parameters[1:])
    return signature


def _element(annotation: Any) -> Any:
    """Return ``X`` for ``list[X]``, ``Sequence[X]`` and the like, nothing for what does not tell."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Iterable) and inner and (len(inner) == 1 or inner[1:] == (...,)):
        return inner[0]
    return Parameter.empty
