"""Load the batch function and the items that the command line names.

It decides how they are found, and which error a mistake gets. It must not know how results are measured or shown.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import json
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.admission import Admission
from batchify._batcher.functions import is_async, is_generator
from batchify._decorator.methods import BatchedMethod, UnboundMethod
from batchify._decorator.microbatch import microbatch
from batchify._decorator.proxy import Batched
from batchify._planning.cost import Workload

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Iterator

    from batchify._core.entries import Entry

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
    # The options of the function that a measurement needs.
    options: dict[str, Any]
    # For each item, its row and a call to await.
    rows: list[Any]
    calls: list[Callable[[], Any]]
    workload: Workload


def load_function(named: str, *, plain: bool = False) -> Batched:
    """Return the decorated function ``module:name``. With ``plain``, decorate an undecorated one."""
    fn = _resolve(named)
    if not isinstance(fn, Batched):
        if not plain:
            msg = f"{named} is not decorated with microbatch; put @microbatch above it, or run: batchify tune {named}"
            raise CommandError(msg)
        try:
            fn = cast("Batched", cast("Any", microbatch)(fn))
        except TypeError as error:
            msg = f"{named} is not a batch function: {error}"
            raise CommandError(msg) from None
    if is_generator(fn.__wrapped__):
        msg = f"{named} is a generator function; only functions that return all results of a batch at once are measured"
        raise CommandError(msg)
    if isinstance(fn, UnboundMethod):
        example = f"module:instance.{named.rpartition('.')[2]}"
        msg = f"{named} is a method; name the method of an instance, for example {example}"
        raise CommandError(msg)
    return fn


def make_target(fn: Batched, items: list[Any]) -> Target:
    call, function = fn._self_call, fn.__wrapped__
    # What depends on the number of waiting calls is no part of a measurement.
    config = replace(call.for_items(fn._self_config), max_pending=None, dedupe=False)
    has_columns = len(call.columns) > 1
    rows = [_row(fn, index, item) for index, item in enumerate(items)]
    calls: list[Callable[[], Any]] = [partial(fn.acall, *(item if has_columns else (item,))) for item in items]
    lifespan = config.lifespan
    if lifespan is not None and isinstance(fn, BatchedMethod):
        lifespan = partial(lifespan, fn._self_instance)
    admission = Admission(config)
    entries = [_entry(admission, index, row) for index, row in enumerate(rows)]
    workload = Workload(entries, config.is_grouped, config)
    options = {"name": config.name, "lifespan": lifespan, "keyed": config.keyed, "sizes": config.sizes}
    return Target(config.name, is_async(function), call.batch(function), options, rows, calls, workload)


def load_items(named: str, loop: AbstractEventLoop) -> list[Any]:
    """Return the items in a file, or those that the function ``module:name`` returns."""
    read = READERS.get(Path(named).suffix)
    if read is None and ":" not in named:
        msg = f"--items {named} must be module:name, or a file ending in {', '.join(READERS)}"
        raise CommandError(msg)
    items = _call_for_items(named, loop) if read is None else _read(Path(named), read)
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
        return fn._self_call.converter({})(item)
    except TypeError:
        signature = fn._self_call.signature
        call = f"{fn._self_config.name}{signature}"
        msg = f"items[{index}] does not fit {call}: it must have one element for each column"
        for option in signature.parameters.values():
            if option.kind is option.KEYWORD_ONLY and option.default is option.empty:
                msg = f"{call} needs a default for {option.name}, because a measurement passes only items"
        raise CommandError(msg) from None


def _entry(admission: Admission, index: int, row: Any) -> Entry:
    try:
        return admission.entry(row)
    except Exception as error:  # noqa: BLE001  # the functions of the options may raise anything
        msg = f"items[{index}] cannot be queued: {type(error).__name__}{location_of(error) or f': {error}'}"
        raise CommandError(msg) from None


def _resolve(named: str) -> Any:
    module, colon, names = named.rpartition(":")
    if not (module and colon and names):
        msg = f"{named} must be module:name or file.py:name, for example package.module:function"
        raise CommandError(msg)
    if (path := Path(module)).suffix == ".py":
        # As with ``python file.py``, the folder of the file is the first to be searched.
        sys.path.insert(0, str(path.parent.resolve()))
        module = path.stem
    found, steps = _import_module(module), names.split(".")
    for index, name in enumerate(steps):
        owner = found
        try:
            found = getattr(owner, name)
        except AttributeError:
            where = module if inspect.ismodule(owner) else f"{module}:{'.'.join(steps[:index])}"
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


def _read(path: Path, read: Callable[[Iterable[str]], Iterable[Any]]) -> list[Any]:
    try:
        # The lines keep their ends, because a field of a CSV file may have several lines.
        with path.open(encoding="utf-8", newline="") as lines:
            return [*read(lines)]
    except OSError as error:
        msg = f"--items {path} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        msg = f"--items {path} is not UTF-8 text"
    except (ValueError, csv.Error) as error:
        msg = f"--items {path}{'' if isinstance(error, ValueError) else ': '}{error}"
    raise CommandError(msg)


def _json_lines(lines: Iterable[str]) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                msg = f", line {number}, column {error.colno}: not JSON ({error.msg})"
                raise ValueError(msg) from None


def _csv_rows(lines: Iterable[str]) -> Iterator[Any]:
    """Yield the rows below the header: a string each if there is one column, else a list of strings."""
    rows = csv.reader(lines)
    next(rows, None)
    return (row[0] if len(row) == 1 else row for row in rows if row)


# How to read items, by suffix.
READERS: dict[str, Callable[[Iterable[str]], Iterable[Any]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".csv": _csv_rows,
    ".txt": lambda lines: filter(None, (line.rstrip("\r\n") for line in lines)),
}
