"""For tests of code that uses batchify: calls without batching, a record of batches, and virtual time.

* ``inline()``: each call is a batch of one; no threads, no windows.
* ``record()``: the batches that ran, with their items and reasons.
* ``VirtualLoop`` and ``run()``: an event loop on which waiting takes no time, and a hang is an error.

Names load lazily: pytest imports this package for the plugin in every run where batchify is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchify.testing.inlining import inline
    from batchify.testing.recording import RecordedBatch, Recorder, record
    from batchify.testing.virtual_time import VirtualLoop, run

__all__ = ["RecordedBatch", "Recorder", "VirtualLoop", "inline", "record", "run"]

_MODULES = {
    "RecordedBatch": "recording",
    "Recorder": "recording",
    "VirtualLoop": "virtual_time",
    "inline": "inlining",
    "record": "recording",
    "run": "virtual_time",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
