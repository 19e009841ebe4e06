"""What a command is about: the batch function that is named on the command line, and the items that it is given.

Decides: how they are found, and what is said when they are not.
Must not know: how anything is measured, or shown.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.functions import is_async
from batchify._decorator.methods import BatchedFunction
from batchify._decorator.microbatch import microbatch
from batchify._decorator.proxy import Batched

if TYPE_CHECKING:
    from collections.abc import Callable


# Modules that are in a traceback, and are not what a person would look at.
NOT_THEIRS = {*sys.stdlib_module_names, "batchify"}


class CommandError(Exception):
    """What a person has to put right. The message is all that is shown."""


@dataclass(frozen=True)
class Target:
    """A batch function, and calls to make of it.

    Attributes:
        name: what it is called in errors and reports.
        fn: its one-item form.
        run: the batch function itself, as a function of a list of rows.
        rows: what calls ask for, as ``_signature`` says; in the order of the items.
        calls: for each item, a call of ``fn`` with it, to be awaited.
    """

    name: str
    fn: Batched
    run: Callable[[list[Any]], Any]
    rows: list[Any]
    calls: list[Callable[[], Any]]

    @property
    def is_async(self) -> bool:
        """Whether the batch function is an ``async def`` function."""
        return is_async(self.fn.__wrapped__)


def function(named: str, *, plain: bool = False) -> Batched:
    """Return the decorated function that ``module:name`` names.

    Args:
        named: a module and, after a colon, a name in it, with dots for names in that.
        plain: take a batch function that is not decorated, too.

    Raises:
        CommandError: there is none.
    """
    owner, found = _found(named)
    if not isinstance(found, Batched):
        found = _decorated(named, found, plain=plain)
    if isinstance(owner, type) and _is_method(found, inspect.getattr_static(owner, named.rpartition(".")[2])):
        msg = f"{named} is a method; name that of an instance, as in module:instance.{named.rpartition('.')[2]}"
        raise CommandError(msg)
    return found


def target(fn: Batched, items: list[Any]) -> Target:
    """Return ``fn`` with calls for ``items``.

    Raises:
        CommandError: an item does not have an element for each column.
    """
    rows = [_row(fn, index, item) for index, item in enumerate(items)]
    spread = len(fn._self_call.columns) > 1
    calls: list[Callable[[], Any]] = [partial(fn.acall, *(item if spread else (item,))) for item in items]
    return Target(fn._self_config.name, fn, fn._self_call.batch(fn.__wrapped__), rows, calls)


def items(named: str) -> Any:
    """Return the items in a file of JSON lines, or what the function that ``module:name`` names returns.

    Raises:
        CommandError: there are none.
    """
    if named.endswith((".jsonl", ".json", ".ndjson")) or ":" not in named:
        return _lines(Path(named))
    _, make = _found(named)
    if not callable(make):
        msg = f"--items {named} must be a function that returns items, got {type(make).__name__}"
        raise CommandError(msg)
    try:
        return make()
    except Exception as error:
        msg = f"--items {named} raised {type(error).__name__}{place(error)}"
        raise CommandError(msg) from error


def listed(named: str, made: Any) -> list[Any]:
    """Return what came of ``--items`` as a list.

    Raises:
        CommandError: it is nothing of the kind, or empty.
    """
    try:
        found = list(made)
    except TypeError:
        msg = f"--items {named} must give a list of items, got {type(made).__name__}"
        raise CommandError(msg) from None
    if not found:
        msg = f"--items {named} gives no items; at least one is needed"
        raise CommandError(msg)
    return found


def place(error: BaseException) -> str:
    """Return where ``error`` was raised, as far as it is the user's code.

    Its message is left out, as that may quote an item.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in NOT_THEIRS:
            return f" at {Path(frame.f_code.co_filename).name}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return ""


def _is_method(found: Batched, held: object) -> bool:
    """Say whether ``found`` wants an instance, which what its class holds would not if that is a static method."""
    return isinstance(found, BatchedFunction) and found._self_kind is None and held is found


def _row(fn: Batched, index: int, item: Any) -> Any:
    try:
        (row,) = fn._self_call.rows([item], {})
    except TypeError:
        fitting = f"{fn._self_config.name}{fn._self_call.signature}"
        msg = f"items[{index}] does not fit {fitting}: it must hold one element for each column"
        raise CommandError(msg) from None
    return row


def _decorated(named: str, found: Any, *, plain: bool) -> Batched:
    if not plain:
        msg = f"{named} is not decorated with microbatch; put @microbatch above it, or run: batchify tune {named}"
        raise CommandError(msg)
    try:
        made: Batched = cast("Any", microbatch)(found)
    except TypeError as error:
        msg = f"{named} is not a batch function: {error}"
        raise CommandError(msg) from None
    return made


def _found(named: str) -> tuple[Any, Any]:
    """Return what ``named`` names, after what that is an attribute of."""
    module, colon, names = named.partition(":")
    if not (module and colon and names):
        msg = f"{named} must be module:name, as in package.module:function"
        raise CommandError(msg)
    owner = found = _module(module)
    for name in names.split("."):
        owner = found
        try:
            found = getattr(owner, name)
        except AttributeError:
            where = module if inspect.ismodule(owner) else f"{module}:{names[: names.index(name) - 1]}"
            msg = f"{where} has no {name!r}"
            raise CommandError(msg) from None
    return owner, found


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            msg = f"there is no module {missing!r} in {Path.cwd()} or where Python looks for modules"
        else:
            msg = f"module {name} needs {missing!r}, which is not installed"
        raise CommandError(msg) from None
    except Exception as error:
        msg = f"module {name} cannot be imported: {type(error).__name__}: {error}{place(error)}"
        raise CommandError(msg) from error


def _lines(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        msg = f"--items {path} cannot be read: {error.strerror}"
        raise CommandError(msg) from None
    except UnicodeDecodeError:
        msg = f"--items {path} is not UTF-8 text"
        raise CommandError(msg) from None
    found: list[Any] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError as error:
                msg = f"--items {path}, line {number}, column {error.colno}: not JSON ({error.msg})"
                raise CommandError(msg) from None
    return found
