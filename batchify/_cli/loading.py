"""Load the batch function and the items that the command line names.

It decides how they are found, and which error a mistake gets. It must not know how results are measured or shown.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.functions import is_async
from batchify._decorator.methods import UnboundMethod
from batchify._decorator.microbatch import microbatch
from batchify._decorator.proxy import Batched

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

# Modules whose frames in a traceback are not the user's code.
NOT_USER_CODE = {*sys.stdlib_module_names, "batchify"}


class CommandError(Exception):
    """A mistake that the user can correct. Only its message is shown."""


@dataclass(frozen=True)
class Target:
    """A batch function and calls of it."""

    name: str
    is_async: bool
    # The batch function as a function of a list of rows.
    run: Callable[[list[Any]], Any]
    # For each item, its row and a call to await.
    rows: list[Any]
    calls: list[Callable[[], Any]]


def load_function(named: str, *, plain: bool = False) -> Batched:
    """Return the decorated function ``module:name``. With ``plain``, decorate an undecorated one."""
    found = _resolve(named)
    if not isinstance(found, Batched):
        found = _decorate(named, found, plain=plain)
    if isinstance(found, UnboundMethod):
        example = f"module:instance.{named.rpartition('.')[2]}"
        msg = f"{named} is a method; name the method of an instance, for example {example}"
        raise CommandError(msg)
    return found


def make_target(fn: Batched, items: list[Any]) -> Target:
    rows = [_row(fn, index, item) for index, item in enumerate(items)]
    has_columns = len(fn._self_call.columns) > 1
    calls: list[Callable[[], Any]] = [partial(fn.acall, *(item if has_columns else (item,))) for item in items]
    function = fn.__wrapped__
    return Target(fn._self_config.name, is_async(function), fn._self_call.batch(function), rows, calls)


def load_items(named: str, loop: AbstractEventLoop) -> list[Any]:
    """Return the items in a file of JSON lines, or those that the function ``module:name`` returns."""
    if named.endswith((".jsonl", ".json", ".ndjson")) or ":" not in named:
        items = _read_json_lines(Path(named))
    else:
        items = _call_for_items(named, loop)
    if not items:
        msg = f"--items {named} has no items; at least one is needed"
        raise CommandError(msg)
    return items


def location_of(error: BaseException) -> str:
    """Return the place in the user's code that raised ``error``, without its message, which may quote an item."""
    for frame, line in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in NOT_USER_CODE:
            return f" at {Path(frame.f_code.co_filename).name}, line {line}"
    return ""


def _row(fn: Batched, index: int, item: Any) -> Any:
    try:
        (row,) = fn._self_call.rows([item], {})
    except TypeError:
        call = f"{fn._self_config.name}{fn._self_call.signature}"
        msg = f"items[{index}] does not fit {call}: it must have one element for each column"
        raise CommandError(msg) from None
    return row


def _decorate(named: str, found: Any, *, plain: bool) -> Batched:
    if not plain:
        msg = f"{named} is not decorated with microbatch; put @microbatch above it, or run: batchify tune {named}"
        raise CommandError(msg)
    try:
        made: Batched = cast("Any", microbatch)(found)
    except TypeError as error:
        msg = f"{named} is not a batch function: {error}"
        raise CommandError(msg) from None
    return made


def _resolve(named: str) -> Any:
    module, colon, names = named.partition(":")
    if not (module and colon and names):
        msg = f"{named} must be module:name, for example package.module:function"
        raise CommandError(msg)
    found = _import_module(module)
    for name in names.split("."):
        owner = found
        try:
            found = getattr(owner, name)
        except AttributeError:
            where = module if inspect.ismodule(owner) else f"{module}:{names[: names.index(name) - 1]}"
            msg = f"{where} has no {name!r}"
            raise CommandError(msg) from None
    return found


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            msg = f"there is no module {missing!r} in {Path.cwd()} or on the module search path of Python"
        else:
            msg = f"module {name} needs {missing!r}, which is not installed"
        raise CommandError(msg) from None
    except Exception as error:
        msg = f"module {name} cannot be imported: {type(error).__name__}: {error}{location_of(error)}"
        raise CommandError(msg) from error


def _call_for_items(named: str, loop: AbstractEventLoop) -> list[Any]:
    make = _resolve(named)
    if not callable(make):
        msg = f"--items {named} must be a function that returns items, got {type(make).__name__}"
        raise CommandError(msg)
    try:
        made: Any = make()
        if inspect.iscoroutine(made):
            made = loop.run_until_complete(made)
    except Exception as error:
        msg = f"--items {named} raised {type(error).__name__}{location_of(error)}"
        raise CommandError(msg) from error
    try:
        return list(made)
    except TypeError:
        msg = f"--items {named} must return a list of items, got {type(made).__name__}"
        raise CommandError(msg) from None


def _read_json_lines(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        msg = f"--items {path} cannot be read: {error.strerror}"
        raise CommandError(msg) from None
    except UnicodeDecodeError:
        msg = f"--items {path} is not UTF-8 text"
        raise CommandError(msg) from None
    items: list[Any] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                items.append(json.loads(line))
            except json.JSONDecodeError as error:
                msg = f"--items {path}, line {number}, column {error.colno}: not JSON ({error.msg})"
                raise CommandError(msg) from None
    return items
