"""The signature of a batch function, and its one-item form.

Decides: which parameters are columns, which are options, and which item a call queues.
Must not know: engines.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from inspect import Parameter, Signature
from types import BuiltinMethodType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ForwardRef, Union, cast, get_args, get_origin

from batchify._batcher.executors import only_items, run_in
from batchify._batcher.functions import is_generator
from batchify._batcher.requests import Request
from batchify._core.outcome import NOT_SEQUENCES, Done, type_in_words
from batchify._decorator.call_options import CallOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.config import Config
    from batchify._batcher.executors import BatchExecutor
    from batchify._batcher.interning import InternedKey

# Annotations may name objects that are not defined yet. Python evaluates them from 3.14 on (PEP 649).
if sys.version_info >= (3, 14):  # pragma: no cover  # covered by the run of the tests under Pyodide
    from annotationlib import Format

    _with_forward_references = partial(inspect.signature, annotation_format=Format.FORWARDREF)
else:
    _with_forward_references = inspect.signature

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Call:
    """The one-item form of a batch function: how it is called with one item, and how it is run for many.

    The item of a call is its element, or a tuple if there are several columns. A call whose options are all at their
    defaults is queued as its bare item, any other call as a ``Request``.
    """

    def __init__(self, fn: Callable[..., Any], name: str, *, bound: bool = False) -> None:
        self._fn = fn
        self._name = name
        parameters = list(_signature_of(fn).parameters.values())
        self._parameters = parameters[1:] if bound else parameters
        self.columns = [p.name for p in self._parameters if _is_column(p)]
        options = [p for p in self._parameters if not _is_column(p)]
        for parameter in options:
            if parameter.kind is Parameter.VAR_POSITIONAL:
                msg = (
                    f"{name}() has {parameter}, which cannot be a column; give it one parameter by name for the list "
                    "of items"
                )
                raise TypeError(msg)
        if not self.columns:
            named = [p.name for p in options if p.default is p.empty and p.kind is Parameter.KEYWORD_ONLY]
            msg = (
                f"{name}() has no column: give it a parameter without a default for the list of items"
                f"{f' ({named[0]} can only be passed by name, so it is an option)' if named else ''}"
            )
            raise TypeError(msg)
        self._options = CallOptions(options, name)
        self._takes_rows = not options and len(self.columns) == 1
        self._form = _compiled(self._parameters, self.columns, self._options)

    @property
    def signature(self) -> Signature:
        """The signature of the one-item form, with the types of an item and its result."""
        signature = _evaluated(self._fn, {})
        known = {p.name for p in self._parameters}
        parameters = [
            p.replace(annotation=_element(p.annotation)) if p.name in self.columns else p
            for p in signature.parameters.values()
            if p.name in known
        ]
        returned = signature.return_annotation
        return Signature(
            parameters, return_annotation=_stream(returned) if is_generator(self._fn) else _result(returned)
        )

    def bind(self, deliver: Callable[[Any], Any], deliver_request: Callable[[Request], Any]) -> Callable[..., Any]:
        """Return the one-item form, which passes a bare item to ``deliver``, or a request to the other."""
        options = self._options

        def ask(item: Any, values: tuple[Any, ...]) -> Any:  # the form calls it only if the function has options
            key = options.key_of(values)
            return deliver(item) if key is None else deliver_request(Request(item, key))

        one: Callable[..., Any] = self._form(deliver, ask)
        one.__qualname__ = self._name
        return one

    def rows(self, items: Iterable[Any], options: dict[str, Any], args: tuple[Any, ...] = ()) -> Iterable[Any]:
        convert = self.converter(options, args)
        return items if convert is _itself else (convert(item) for item in items)

    def converter(self, options: dict[str, Any], args: tuple[Any, ...] = ()) -> Callable[[Any], Any]:
        """Return the function that makes the row of an item of ``map()`` or ``imap()``."""
        is_one = len(self.columns) == 1
        if is_one and not (self._options.parameters or args or options):
            return _itself
        row = self.bind(_itself, _itself)
        return lambda item: row(*((item,) if is_one else self._elements(item)), *args, **options)

    def _elements(self, item: Any) -> Iterable[Any]:
        if issubclass(type(item), NOT_SEQUENCES) or not hasattr(item, "__iter__"):
            msg = (
                f"map() and imap() of {self._name}() take one tuple ({', '.join(self.columns)}) for each item, got "
                f"{type_in_words(item)}; call them for a method on an instance, and put @microbatch above @classmethod"
            )
            raise TypeError(msg)
        return item  # type: ignore[no-any-return]

    def for_items(self, config: Config) -> Config:
        """Return ``config`` with ``weigh``, ``length`` and ``group_by`` as functions of an item."""
        if len(self.columns) == 1:
            return config
        weigh, length, group_by = map(_of_tuple, (config.weigh, config.length, config.group_by))
        return replace(config, weigh=weigh, length=length, group_by=group_by)

    def batch(self, fn: Callable[..., Any], executor: BatchExecutor | None = None) -> Callable[[list[Any]], Any]:
        """Return ``fn``, the batch function or a bound one, as a function of a list of rows, run in ``executor``."""
        if executor is not None:
            return run_in(fn, executor, only_items if self._takes_rows else self._arguments)
        return fn if self._takes_rows else partial(self._spread, fn)

    def _spread(self, fn: Callable[..., Any], rows: list[Any]) -> Any:
        args, kwargs = self._arguments(rows)
        return fn(*args, **kwargs)

    def _arguments(self, rows: list[Any]) -> tuple[Iterable[Any], dict[str, Any]]:
        """Return the arguments of the batch function for the rows of one batch."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        first = rows[0]
        if type(first) is Request:
            # All calls of a batch pass the same options.
            args, kwargs = self._options.arguments(cast("InternedKey", first.options))
            rows = [row.item for row in rows]
        columns = [rows] if len(self.columns) == 1 else [list(column) for column in zip(*rows, strict=True)]
        return (*columns, *args), kwargs


def _of_tuple(fn: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
    return None if fn is None else lambda item: fn(*item)


class _Code(str):
    """Source code that a signature shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _compiled(parameters: list[Parameter], columns: list[str], options: CallOptions) -> Callable[..., Any]:
    """Return a function of ``deliver`` and ``ask`` that returns the one-item form.

    It is compiled, as the methods of dataclasses are, so that Python itself checks the arguments: a check at run time
    would be slower, and wrong arguments would not fail as they do for any function.
    """
    own = "_"
    while any(p.name.startswith(own) for p in parameters):
        own += "_"
    named = options.parameters
    defaults = {f"{own}default_{name}": value for name, value in options.defaults.items()}
    taken = Signature(
        [
            p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else _Code(f"{own}default_{p.name}"))
            for p in parameters
        ]
    )
    item = columns[0] if len(columns) == 1 else f"({', '.join(columns)})"
    body = f"{own}deliver({item})"
    if named:
        asked = f"{own}ask({item}, ({''.join(f'{p.name}, ' for p in named)}))"
        required = any(p.default is p.empty and p.kind is not Parameter.VAR_KEYWORD for p in named)
        plain = " and ".join(
            f"not {p.name}" if p.kind is Parameter.VAR_KEYWORD else f"{p.name} is {own}default_{p.name}" for p in named
        )
        body = asked if required else f"{body} if {plain} else {asked}"
    # The only foreign text in the source is the names of parameters.
    source = f"lambda {own}deliver, {own}ask: lambda {str(taken)[1:-1]}: {body}"
    form: Callable[..., Any] = eval(source, {"__name__": __name__, **defaults})  # noqa: S307
    return form


def _itself(row: Any) -> Any:
    return row


def _is_column(parameter: Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind in POSITIONAL


def _evaluated(fn: Callable[..., Any], names: dict[str, Any]) -> Signature:
    """Return the signature with annotations as types. A name that is not defined yet is a forward reference."""
    try:
        return inspect.signature(fn, locals=names, eval_str=True)
    except Exception as error:  # noqa: BLE001  # evaluating an annotation may raise anything
        # A scope inside an annotation does not see these names, and neither does PEP 649.
        name = error.name if isinstance(error, NameError) else None
        if name is not None and name not in names:
            return _evaluated(fn, {**names, name: ForwardRef(name)})
        return _signature_of(fn)


def _signature_of(fn: Callable[..., Any]) -> Signature:
    try:
        signature = _with_forward_references(fn)
    except ValueError:
        # A builtin without a signature can only be called by position.
        return Signature([Parameter("items", Parameter.POSITIONAL_ONLY)])
    parameters = list(signature.parameters.values())
    # A compiled bound method may list its instance, as those of the package tokenizers do.
    if isinstance(fn, BuiltinMethodType) and "self" in signature.parameters:
        return signature.replace(parameters=parameters[1:])
    return signature


def _expanded(annotation: Any) -> Any:
    """Return the type that ``Annotated`` or an alias stands for."""
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _expanded(inner[0])
    try:
        value = annotation.__value__
    except Exception:  # noqa: BLE001  # most types are no alias, and the value of an alias may raise anything
        return annotation
    return _expanded(value[inner] if inner else value)


def _element(annotation: Any) -> Any:
    """Return ``X`` for ``list[X]``, ``Sequence[X]`` and the like, otherwise ``Parameter.empty``."""
    annotation = _expanded(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Iterable) and inner and (len(inner) == 1 or inner[1:] == (...,)):
        return inner[0]
    return Parameter.empty


def _result(annotation: Any) -> Any:
    """Return the type of an element, or of a value of a mapping, without exceptions and ``DONE``, which end a call."""
    annotation = _expanded(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    is_mapping = inspect.isclass(origin) and issubclass(origin, Mapping)
    element = inner[-1] if is_mapping and inner else _element(annotation)
    if get_origin(element) not in (Union, UnionType):
        return element
    kinds = [kind for kind in get_args(element) if not (inspect.isclass(kind) and issubclass(kind, (Exception, Done)))]
    return Union[tuple(kinds) or element]  # noqa: UP007  # any number of types


def _stream(annotation: Any) -> Any:
    """Return the type of a stream of ``X`` for an iterator of lists of ``X``, otherwise ``Parameter.empty``."""
    annotation = _expanded(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    element = _result(inner[0]) if inner else Parameter.empty
    if not isinstance(origin, type) or element is Parameter.empty:
        return Parameter.empty
    kind: Any = AsyncIterator if issubclass(origin, AsyncIterable) else Iterator
    return kind[element]
