"""The workloads by name, in the order in which they run."""

from __future__ import annotations

from tests.bench import apart, arrivals, closed, frames, growth, padding, serving, single, tokenizing, web

# Name -> function that returns the contests of a plan.
WORKLOADS = {
    "asyncio": closed.asyncio_contests,
    "gather": single.gather_contests,
    "lone": single.lone_contests,
    "acall": closed.acall_contests,
    "threads": closed.thread_contests,
    "groups": growth.groups_contests,
    "instances": growth.instances_contests,
    "waiting": growth.waiting_contests,
    "memory": growth.memory_contests,
    "poisson": arrivals.poisson_contests,
    "padding": padding.padding_contests,
    "tokenizer": tokenizing.tokenizer_contests,
    "web": web.web_contests,
    "service": serving.service_contests,
    "frames": frames.frame_contests,
    "import": apart.import_contests,
    "idle": apart.idle_contests,
}
