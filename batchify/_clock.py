"""The clock of all engines: ``time.monotonic()``, where no library that freezes time can reach it.

freezegun replaces each module attribute that is a function of ``time``, in all loaded modules. Callers with a frozen
clock and workers with the real one would wait for each other for ever. So this module takes the function from a second
``time`` module: it is the same C function in another object, at the same cost. A first import under a frozen clock
gets the real function too.
"""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec

monotonic: Callable[[], float] = module_from_spec(cast("ModuleSpec", find_spec("time"))).monotonic
