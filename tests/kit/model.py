"""A reference model of the queue, which keeps every call in one plain list and searches it for every answer."""

from __future__ import annotations

import math

from batchify._core.slots import SPAN
from batchify._core.timing import Adaptive


def item_of(ticket):
    """Return the item of the caller with this ticket; items sort in order of arrival."""
    return f"item {ticket:04}"


class Model:
    """Makes the same decisions as the queue, at the cost of linear searches."""

    def __init__(self, max_size, timeout, concurrency, span=SPAN):
        self.max_size = max_size
        self.timeout = timeout
        self.concurrency = concurrency
        # Every caller that ever arrived, in order of arrival.
        self.callers = []
        # One dict for each batch that ever started, in order of departure.
        self.batches = []
        self.timing = Adaptive(concurrency)
        # The number of arrivals after which the mark is renewed, and that of arrivals since it was.
        self.span = span
        self.unmarked = 0
        # The number of arrivals up to the next one that matters: at most 0 until the shell has reacted to it.
        self.missing = 1
        # Whether every arrival matters.
        self.closed = False

    def waiting(self):
        return [caller for caller in self.callers if caller["state"] == "waiting"]

    def running(self):
        return [batch for batch in self.batches if batch["state"] == "running"]

    def slot_free(self):
        return len(self.running()) < self.concurrency

    def plan(self):
        """Find the next arrival that matters, renew the mark, and return the time to wake at."""
        self.unmarked = 0
        self.missing = 0 if self.closed else self._missing()
        return self.wake_at()

    def _missing(self):
        waiting = len(self.waiting())
        if not self.slot_free() or waiting >= self.max_size:
            return self.span
        return min(self.max_size - waiting, self.span) if waiting else 1

    def add(self, now):
        """Add a caller; return whether its arrival matters."""
        self.missing -= 1
        self.unmarked += 1
        ticket = len(self.callers)
        caller = {
            "ticket": ticket,
            "item": item_of(ticket),
            "waiter": f"waiter {ticket}",
            "arrived": now,
            "state": "waiting",
            "pushed": None,
            # Whether a slot became free when the caller was due, and whether a slot became free at any time.
            "freed": False,
            "seen_free": False,
        }
        self.callers.append(caller)
        return self.missing <= 0

    def due(self, caller):
        """Return when a caller may start that is the head of a queue, if a slot is free and no batch is full."""
        if self.timeout is not None:
            return caller["arrived"] + self.timeout
        return self.timing.due(caller["arrived"], len(self.running()))

    def wake_at(self):
        """Return when the next batch may start if no other event occurs: ``-inf`` for at once, ``None`` for never."""
        waiting = self.waiting()
        if not waiting or not self.slot_free():
            return None
        if len(waiting) >= self.max_size or waiting[0]["pushed"]:
            return -math.inf
        return self.due(waiting[0])

    def reasons(self):
        """Return the reasons that the next batch may report."""
        waiting = self.waiting()
        if len(waiting) >= self.max_size:
            return {"full"}
        if waiting[0]["pushed"]:
            return {waiting[0]["pushed"]}
        otherwise = "idle" if self.timeout is None and not self.running() else "timeout"
        if self.timeout is None and self.concurrency > 1:
            # If several slots became free in turn, the caller may have waited for any of them.
            return {otherwise, "slot"} if waiting[0]["seen_free"] else {otherwise}
        return {"slot"} if waiting[0]["freed"] else {otherwise}

    def take(self, now):
        """Start a batch; return its callers."""
        members = self.waiting()[: self.max_size]
        for caller in members:
            caller["state"] = "running"
        self.timing.departed(now)
        self.batches.append({"members": members, "departed": now, "state": "running", "left": []})
        return members

    def finish(self, batch, now):
        all_busy = not self.slot_free()
        batch["state"] = "ended"
        completed = sum(caller["state"] != "dropped" for caller in batch["members"])
        for caller in batch["members"]:
            caller["state"] = "ended"
        if completed:
            self.timing.ended(now - batch["departed"], completed)
        if all_busy:
            for caller in self.waiting():
                caller["seen_free"] = True
                caller["freed"] = self.due(caller) <= now

    def change(self, max_size):
        """Apply a new size, and forget the learnt run times."""
        self.max_size = max_size
        self.timing = Adaptive(self.concurrency)

    def push(self, reason):
        for caller in self.waiting():
            caller["pushed"] = reason
