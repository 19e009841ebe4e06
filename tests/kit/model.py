"""A batcher that is too simple to be wrong: a plain list of every call that was ever made."""

from __future__ import annotations

import math

from batchify._core.timing import Adaptive


def number(place):
    """Return the item of the caller with this number; items sort in the order of their arrival."""
    return f"item {place:04}"


class Model:
    """Does what a batcher does, however much time that takes."""

    def __init__(self, max_size, timeout, concurrency):
        self.max_size = max_size
        self.timeout = timeout
        self.concurrency = concurrency
        # Every caller that ever arrived, in order.
        self.callers = []
        # One dict for each batch that ever left, in order.
        self.batches = []
        self.timing = Adaptive(concurrency)
        # Whether an arrival asked for attention, and got none.
        self.unheard = False

    def waiting(self):
        return [caller for caller in self.callers if caller["state"] == "waiting"]

    def running(self):
        return [batch for batch in self.batches if batch["state"] == "running"]

    def slot_free(self):
        return len(self.running()) < self.concurrency

    def add(self, now):
        """Add a caller; return whether a batch may be able to leave."""
        rings = self.slot_free() and (not self.waiting() or len(self.waiting()) + 1 >= self.max_size)
        self.unheard = self.unheard or rings
        place = len(self.callers)
        caller = {
            "ticket": place,
            "item": number(place),
            "waiter": f"waiter {place}",
            "arrived": now,
            "state": "waiting",
            "pushed": None,
            # Whether a slot became free when the caller might have left, and whether one became free at all.
            "freed": False,
            "seen_free": False,
        }
        self.callers.append(caller)
        return self.unheard

    def due(self, caller):
        """Return when a caller may leave that is the head of a queue that is not full, with a slot free."""
        if self.timeout is not None:
            return caller["arrived"] + self.timeout
        return self.timing.due(caller["arrived"], len(self.running()))

    def wake_at(self):
        """Return when a batch may leave if nothing else happens; ``-inf`` if at once, ``None`` if never."""
        line = self.waiting()
        if not line or not self.slot_free():
            return None
        if len(line) >= self.max_size or line[0]["pushed"]:
            return -math.inf
        return self.due(line[0])

    def reasons(self):
        """Return the reasons that the next batch may name."""
        line = self.waiting()
        if len(line) >= self.max_size:
            return {"full"}
        if line[0]["pushed"]:
            return {line[0]["pushed"]}
        otherwise = "idle" if self.timeout is None and not self.running() else "timeout"
        if self.timeout is None and self.concurrency > 1:
            # Several slots became free one after the other: any of them may be the one that the caller waited for.
            return {otherwise, "slot"} if line[0]["seen_free"] else {otherwise}
        return {"slot"} if line[0]["freed"] else {otherwise}

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
        batch["state"] = "over"
        ran = sum(caller["state"] != "dropped" for caller in batch["members"])
        for caller in batch["members"]:
            caller["state"] = "over"
        if ran:
            self.timing.ended(now - batch["departed"], ran)
        if all_busy:
            for caller in self.waiting():
                caller["seen_free"] = True
                caller["freed"] = self.due(caller) <= now

    def push(self, reason):
        for caller in self.waiting():
            caller["pushed"] = reason
