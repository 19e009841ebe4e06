"""The workloads by name, in the order in which they are run."""

from __future__ import annotations

from tests.bench import closed, single

# Name -> makes the contests of a plan.
WORKLOADS = {
    "asyncio": closed.asyncio_contests,
    "gather": single.gather_contests,
    "lone": single.lone_contests,
    "acall": closed.acall_contests,
    "threads": closed.thread_contests,
}
