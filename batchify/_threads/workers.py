"""Worker threads: what they wait for, and who wakes and starts them.

Decides: which worker sees to what there is, and when there is one more.
Must not know: batches, the core, what there is to do.

Each worker waits for a bell of its own, and holds its engine weakly meanwhile: who rings a bell for work hands the
engine over with it. When the engine is gone, its weak reference rings all bells, and the workers end.
"""

from __future__ import annotations

from threading import TIMEOUT_MAX, Lock, Thread
from typing import Any, Generic, Protocol, TypeVar
from weakref import ref


class Engine(Protocol):
    """What workers work for."""

    name: str

    def work(self, signal: WakeSignal) -> bool:
        """Do all there is to do, and say whether the worker is to wait for its bell, and not to end."""
        ...


E = TypeVar("E", bound=Engine)


class WakeSignal:
    """What a worker waits for. Who rings it for work gives it the engine: when it wakes, nobody else may hold that."""

    __slots__ = ("_engine", "_lock")

    def __init__(self) -> None:
        # Held while it has not been rung.
        self._lock = Lock()
        self._lock.acquire()
        self._engine: Engine | None = None

    def ring(self, engine: Engine | None = None) -> None:
        self._engine = engine
        self._lock.release()

    def wait(self) -> Engine | None:
        """Wait until it is rung, and return the engine if there is work."""
        self._lock.acquire()
        engine, self._engine = self._engine, None
        return engine

    def wait_for(self, seconds: float) -> bool:
        """Wait until it is rung, but no longer than this, and say whether it was."""
        rung = self._lock.acquire(timeout=min(max(seconds, 0), TIMEOUT_MAX))
        if rung:
            self._engine = None
        return rung


class Workers(Generic[E]):
    """The workers of an engine. What is done with them needs the engine's lock."""

    __slots__ = ("count", "idle", "weak")

    def __init__(self, engine: E) -> None:
        self.count = 0
        # The bells of those that wait. Who rings one takes it out.
        self.idle: list[WakeSignal] = []
        idle = self.idle
        # One for all workers, so that each bell is rung once.
        self.weak: ref[E] = ref(engine, lambda _: _wake_all(idle))

    def ring(self, engine: E, most: int) -> None:
        """Wake a worker that waits, or start one if there are fewer than ``most``.

        Raises:
            RuntimeError: the thread can't be started.
        """
        if self.idle:
            self.idle.pop().ring(engine)
        elif self.count < most:
            name = f"{engine.name}-{self.count}"
            self.count += 1
            signal = WakeSignal()
            signal.ring(engine)
            try:
                Thread(target=_work, args=(self.weak, signal), name=name, daemon=True).start()
            except RuntimeError:
                self.count -= 1
                raise

    def wake_all(self) -> None:
        """Let all that wait see what has changed."""
        _wake_all(self.idle)

    def cancel_wait(self, signal: WakeSignal) -> None:
        """Note that the time of the worker with ``signal`` was over before that rang."""
        if signal in self.idle:
            self.idle.remove(signal)
        else:
            # It was rung just after: take the ring with it.
            signal.wait()


def _work(weak: ref[Any], signal: WakeSignal) -> None:
    while (engine := signal.wait() or weak()) is not None:
        goes_on = engine.work(signal)
        del engine
        if not goes_on:
            return


def _wake_all(signals: list[WakeSignal]) -> None:
    while signals:
        signals.pop().ring()
