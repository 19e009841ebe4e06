"""The list of live batchers."""

from __future__ import annotations

import gc

import pytest

from batchify._batcher import base, live
from batchify._batcher.live import register, register_for_fork, registered
from batchify._batcher.registry import aclose_all, batchers, close_all, sources

pytestmark = pytest.mark.usefixtures("no_others")


class Batcher(base.Batcher):
    """A batcher that logs the calls of its methods."""

    name = ""

    def __init__(self, name, log=None, parent=None, *, listed=True):
        self.name = name
        self.log = log
        self._parent = parent
        self._own_counters = {}
        register(self, listed=listed)

    def __repr__(self):
        return self.name

    def flush(self):
        self.log.append(f"{self.name} flushed")

    def close(self, timeout=None):
        self.log.append(f"{self.name} closed")

    def _reset_after_fork(self):
        self.log.append(f"{self.name} reset")

    def _settle(self):
        if self.log is not None:
            self.log.append(f"{self.name} settled")

    async def aclose(self, timeout=None):
        self.log.append(f"{self.name} closed on the loop")


def test_the_list_is_empty_at_first():
    """Before any batcher is made, the list is empty."""
    assert [] == batchers()


def test_batchers_are_listed_oldest_first():
    """Batchers are listed in the order in which they were made."""
    made = [Batcher("first"), Batcher("second"), Batcher("third")]
    assert made == batchers()


def test_a_batcher_that_is_registered_twice_is_listed_once():
    """A batcher that is registered again keeps its place."""
    made = [Batcher("first"), Batcher("second")]
    register(made[0])
    assert made == batchers()


def test_the_list_is_a_copy():
    """A change of the returned list does not affect the registered batchers."""
    made = [Batcher("first")]
    batchers().clear()
    assert made == batchers()


def test_batchers_are_held_weakly():
    """A batcher without references is no longer listed, and its neighbours are."""
    made = [Batcher("first"), Batcher("second")]
    del made[0]
    gc.collect()
    assert made == batchers()


def test_the_registry_forgets_a_freed_batcher():
    """The registry keeps no entry for a freed batcher, so that it does not grow."""
    Batcher("first")
    gc.collect()
    assert {} == live._live


def test_a_freed_batcher_is_not_listed_before_its_callback(monkeypatch):
    """A freed batcher is not listed, even before the callback of its weak reference."""
    monkeypatch.setattr("batchify._batcher.live._live", {lambda: None: True})
    live._reset_after_fork()
    assert [[], [], []] == [batchers(), registered(), sources()]


def test_a_batcher_need_not_be_listed():
    """A batcher that only counts for others is registered, but not listed until it is registered as listed."""
    made = [Batcher("first", listed=False), Batcher("second")]
    assert ([(made[0], False), (made[1], True)], [made[1]]) == (registered(), batchers())
    register(made[0])
    assert made == batchers()
    register(made[0], listed=False)
    assert made == batchers()


def test_counters_are_made_once():
    """Counters are made at first use, and the batcher is registered with them."""
    batcher = Batcher("first")
    assert batcher._counters is batcher._counters
    live._live.clear()
    batcher._own_counters.clear()
    assert [] == registered()
    _ = batcher._counters
    assert ([(batcher, False)], []) == (registered(), batchers())


def test_sources_have_no_parent():
    """The sources of all counts are the batchers without a parent, listed or not, and they are settled first."""
    log = []
    parent = Batcher("parent", log, listed=False)
    made = [parent, Batcher("alone", log)]
    child = Batcher("child", log, parent)
    assert [(batcher.name, batcher._counters) for batcher in made] == sources()
    assert ["parent settled", "alone settled", "child settled"] == log
    child._counters.left()
    assert [1, 1] == [batcher._counters.snapshot("").cancelled_items for batcher in (parent, child)]


def test_close_all_closes_all_oldest_first():
    """``close_all()`` closes every live batcher, in the order in which they were made. The later ones start at once."""
    log = []
    made = [Batcher("first", log), Batcher("second", log)]
    close_all()
    assert ["second flushed", *(f"{batcher} closed" for batcher in made)] == log


async def test_aclose_all_closes_all_oldest_first():
    """``aclose_all()`` closes every live batcher, in the order in which they were made."""
    log = []
    made = [Batcher("first", log), Batcher("second", log)]
    await aclose_all()
    assert ["second flushed", *(f"{batcher} closed on the loop" for batcher in made)] == log


def test_a_fork_resets_everything():
    """In the child of a fork, every live batcher and every other registered object is reset."""
    log = []
    made = [Batcher("first", log), Batcher("second", log, listed=False), Batcher("other", log)]
    live._live.popitem()
    register_for_fork(made[2])
    live._reset_after_fork()
    assert [f"{batcher} reset" for batcher in made] == log


def test_other_objects_are_held_weakly():
    """The registry keeps no entry for other objects that are freed."""
    before = len(live._others)
    register_for_fork(Batcher("other"))
    gc.collect()
    assert before >= len(live._others)
