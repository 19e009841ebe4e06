"""Resolve a GraphQL query of 1,000 nodes with few SQL queries.

This example shows how batching solves the N+1 query problem of GraphQL, beside the ``DataLoader`` of Strawberry.

Each of 1,000 nodes resolves its group by itself: with a query of its own, with a ``DataLoader``, or with a function of
batchify. Eight requests run at once. A ``DataLoader`` belongs to one request, and caches its keys. A function of
batchify serves all requests of the process, so they share queries, and it caches nothing.

Batching does not pay for resolvers that are plain ``def`` functions: Strawberry calls them one after the other, so each
would wait alone. Nor does it pay for SQLite in the same process, which answers a query in microseconds: here, neither
kind of batches saves time. Over a network, each saved query saves a round trip.

Run it with ``python examples/graphql_api.py``; it needs the package ``strawberry-graphql``.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from time import process_time
from typing import TYPE_CHECKING

import strawberry
from strawberry.dataloader import DataLoader

from batchify import microbatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NODES, GROUPS, REQUESTS = 1000, 200, 8

database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
database.executemany("INSERT INTO team VALUES (?, ?)", [(number, f"team {number}") for number in range(GROUPS)])
# Every SQL query, recorded by SQLite.
queries: list[str] = []
database.set_trace_callback(queries.append)


async def fetch(ids: list[int]) -> list[str | None]:
    """Return the name of the team with each id, from one query."""
    marks = ", ".join("?" * len(ids))
    rows = database.execute(f"SELECT id, name FROM team WHERE id IN ({marks})", ids)  # noqa: S608  # only "?"
    names: dict[int, str] = dict(rows)
    return [names.get(each) for each in ids]


async def alone(number: int) -> str | None:
    """Return the name of a team, from a query of its own."""
    return (await fetch([number]))[0]


# The same function for all requests.
batched = microbatch(fetch, max_size=500, dedupe=True)


@strawberry.type
class Node:
    """A node that knows the id of its team."""

    id: int

    @strawberry.field
    async def team(self, info: strawberry.Info) -> str | None:
        """Return the name of the team."""
        load: Callable[[int], Awaitable[str | None]] = info.context
        return await load(self.id % GROUPS)


@strawberry.type
class Query:
    """The root of the schema."""

    @strawberry.field
    def nodes(self) -> list[Node]:
        """Return all nodes."""
        return [Node(id=number) for number in range(NODES)]


schema = strawberry.Schema(Query)


async def answer(load: Callable[[int], Awaitable[str | None]]) -> object:
    """Answer a request, in which ``load`` returns the name of a team."""
    result = await schema.execute("{ nodes { id team } }", context_value=load)
    if result.errors:
        sys.exit(str(result.errors[0]))
    return result.data


async def main() -> None:
    """Answer all requests in each of three ways, and compare."""
    ways = {
        "a query each": lambda: alone,
        "DataLoader": lambda: DataLoader(load_fn=fetch).load,
        "batchify": lambda: batched,
    }
    print(f"{REQUESTS} requests of {NODES} nodes in {GROUPS} teams\n")
    expected = None
    for name, loader in ways.items():
        queries.clear()
        start = process_time()
        answers = await asyncio.gather(*(answer(loader()) for _ in range(REQUESTS)))
        print(f"{name:<14}{len(queries):>6} queries {process_time() - start:>8.2f} s of CPU time")
        if answers != (expected := expected or answers):
            sys.exit("answers differ from those with a query for each node")
    stats = batched.batch_stats
    print(f"\ncalls made: {REQUESTS * NODES}, answered_items: {stats.answered_items}, batches: {stats.total_batches}")
    print(f"All answers are equal ({REQUESTS} of {REQUESTS}).")


if __name__ == "__main__":
    asyncio.run(main())
