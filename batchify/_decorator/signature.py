"""What a batch function looks like: its name, its kind, and the calls that its one-item form takes.

Decides: which parameters are columns that batches are made of, which are options, and what a call carries.
Must not know: engines.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from inspect import Parameter, Signature
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from batchify._batcher.executors import run_in
from batchify._batcher.functions import is_async, is_async_generator, is_generator
from batchify._decorator.call_options import CallOptions, as_default

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Call:
    """The one-item form of a batch function: how it is called with an item, and how it is run for many.

    Parameters without a default are columns: a call gives one element of each. All others are options: the batch
    function gets them as the call gave them, and only calls with equal options share a batch. A *row* is what one call
    asks for: its item, which is a tuple if there are several columns; together with its options, if there are any.

    Args:
        fn: the batch function.
        name: what it is called in errors.
        bound: whether its first parameter is given already, as the instance is to a method.

    Raises:
        TypeError: no parameter can be a column, or a parameter takes any number of them.
    """

    __slots__ = ("_choices", "_fn", "_form", "_has_options", "_name", "_parameters", "_signature", "columns", "on_loop")

    def __init__(self, fn: Callable[..., Any], name: str, *, bound: bool = False) -> None:
        self._fn = fn
        self._name = name
        # Whether the event loop of its callers runs the batch function.
        self.on_loop = is_async(fn) or is_async_generator(fn)
        self._signature: Signature | None = None
        self._parameters = _parameters(fn)[1:] if bound else _parameters(fn)
        self.columns = [p.name for p in self._parameters if _is_column(p)]
        options = [p for p in self._parameters if not _is_column(p)]
        for parameter in options:
            if parameter.kind is Parameter.VAR_POSITIONAL:
                msg = (
                    f"{name}() has {parameter}, which is no column; give it one parameter by name for the list of items"
                )
                raise TypeError(msg)
        if not self.columns:
            named = [p.name for p in options if p.default is p.empty and p.kind is Parameter.KEYWORD_ONLY]
            msg = (
                f"{name}() has no column: give it a parameter without a default for the list of items"
                f"{f' ({named[0]} is none, as it can only be given by name)' if named else ''}"
            )
            raise TypeError(msg)
        self._choices = CallOptions(options, name)
        self._has_options = bool(options)
        self._form = _compiled(self._parameters, self.columns, self._choices if self._has_options else None)

    @property
    def signature(self) -> Signature:
        """The signature of the one-item form: an item for a list of items, a result for the results."""
        if self._signature is None:
            signature = _evaluated(self._fn)
            known = {p.name for p in self._parameters}
            parameters = [
                p.replace(annotation=_element(p.annotation)) if p.name in self.columns else p
                for p in signature.parameters.values()
                if p.name in known
            ]
            requested = signature.return_annotation
            self._signature = Signature(
                parameters, return_annotation=_stream(requested) if is_generator(self._fn) else _element(requested)
            )
        return self._signature

    def one(self, hand: Callable[[Any], Any]) -> Callable[..., Any]:
        """Return a function that takes the arguments of one call, and returns ``hand(row)`` for its row.

        Python itself looks at the arguments, so that wrong ones fail as those of any function do.
        """
        one: Callable[..., Any] = self._form(hand)
        one.__qualname__ = self._name
        return one

    def rows(self, items: Iterable[Any], options: dict[str, Any]) -> Iterable[Any]:
        """Return the rows of ``items``, with the same options for each."""
        if self._is_plain and not options:
            return items
        row = self.one(_itself)
        if len(self.columns) == 1:
            return (row(item, **options) for item in items)
        return (row(*self._elements(item), **options) for item in items)

    def _elements(self, item: Any) -> Iterable[Any]:
        if isinstance(item, (str, bytes)) or not hasattr(item, "__iter__"):
            msg = (
                f"{self._name}.map() takes items of one element for each of {', '.join(self.columns)}, as tuples, got "
                f"a {type(item).__name__}; of a method, call it on an instance, and of a class method, decorate above "
                "@classmethod"
            )
            raise TypeError(msg)
        return item  # type: ignore[no-any-return]

    def for_rows(self, config: Config) -> Config:
        """Return the options for a batcher of rows, of those for items."""
        return replace(
            config,
            weigh=self._on_rows(config.weigh),
            group_by=self._on_rows(config.group_by),
            has_options=self._has_options,
        )

    def batch(self, fn: Callable[..., Any], elsewhere: BatchExecutor | None = None) -> Callable[[list[Any]], Any]:
        """Return ``fn``, the batch function or one like it, as a function of a list of rows that runs ``elsewhere``."""
        fn = run_in(fn, elsewhere)
        return fn if self._is_plain else partial(self._spread, fn)

    @property
    def _is_plain(self) -> bool:
        """Whether a row is an item and nothing else."""
        return not self._has_options and len(self.columns) == 1

    def _on_rows(self, fn: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
        """Return a function of an item, or of one argument for each column, as a function of a row."""
        if fn is None or self._is_plain:
            return fn
        has_options, is_one = self._has_options, len(self.columns) == 1

        def on_row(row: Any) -> Any:
            item = row[0] if has_options else row
            return fn(item) if is_one else fn(*item)

        return on_row

    def _spread(self, fn: Callable[..., Any], rows: list[Any]) -> Any:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if self._has_options:
            args, kwargs = self._choices.arguments(rows[0][1])
            rows = [row[0] for row in rows]
        columns = [rows] if len(self.columns) == 1 else [list(column) for column in zip(*rows, strict=True)]
        return fn(*columns, *args, **kwargs)


class _Code(str):
    """Source that stands in a signature as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _compiled(parameters: list[Parameter], columns: list[str], choices: CallOptions | None) -> Callable[..., Any]:
    """Return a function of ``hand`` that returns the function of the parameters that returns ``hand(row)``.

    It is compiled, as the methods of dataclasses are: nothing that looks at arguments at run time is as fast, or fails
    as Python does.
    """
    own = "_"
    while any(p.name.startswith(own) for p in parameters):
        own += "_"
    taken = Signature(
        [
            p.replace(
                annotation=p.empty, default=p.empty if p.default is p.empty else _Code(f"{own}defaults[{p.name!r}]")
            )
            for p in parameters
        ]
    )
    row = columns[0] if len(columns) == 1 else f"({', '.join(columns)})"
    if choices is not None:
        row = f"({row}, {own}choose(({''.join(f'{name}, ' for name in choices.names)})))"
    known = {
        "__name__": __name__,
        f"{own}choose": None if choices is None else choices.key_of,
        f"{own}defaults": {p.name: as_default(p.default) for p in parameters if p.default is not p.empty},
    }
    # Names of parameters are all that it is made of.
    form: Callable[..., Any] = eval(f"lambda {own}hand: lambda {str(taken)[1:-1]}: {own}hand({row})", known)  # noqa: S307
    return form


def _itself(row: Any) -> Any:
    return row


def _is_column(parameter: Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind in POSITIONAL


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


def _stream(annotation: Any) -> Any:
    """Return ``Iterator[X]`` for an iterator of lists of X, asynchronous or not, nothing for what does not tell."""
    origin, inner = get_origin(annotation), get_args(annotation)
    element = _element(inner[0]) if inner else Parameter.empty
    if not isinstance(origin, type) or element is Parameter.empty:
        return Parameter.empty
    kind: Any = AsyncIterator if issubclass(origin, AsyncIterable) else Iterator
    return kind[element]
