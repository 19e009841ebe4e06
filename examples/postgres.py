"""Build pages that look up one row at a time, with few round trips to PostgreSQL.

This example shows how many queries and how much time batching saves when code makes N+1 queries and each is a round
trip.

A shop shows orders. A page needs one query for its orders and one for the customer of each order: N+1 queries. The
pages are tasks that share a pool of connections. Each page looks up one customer at a time, and the lookups that wait
at the same time share one query, ``WHERE id = ANY(...)``. Some customers no longer exist, and their name is ``None``.

Run it with ``python examples/postgres.py``; it needs the packages ``psycopg`` and ``psycopg-pool``. It uses the server
that libpq finds, by default or from variables such as ``PGHOST``, and creates one schema there, which it drops at the
end. Without a server it uses SQLite, which shows the number of queries but has no round trips.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from batchify import microbatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SCHEMA = f"batchify_example_{os.getpid()}"
CONNECTIONS = 8
PAGES = 200
# Every sixteenth customer that has orders no longer exists.
TABLES = """
    CREATE TABLE customer (id integer PRIMARY KEY, name text NOT NULL);
    CREATE TABLE purchase (id integer PRIMARY KEY, page integer NOT NULL, customer integer NOT NULL);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3199)
    INSERT INTO customer SELECT i, 'customer ' || i FROM n WHERE i % 16 > 0;
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 4999)
    INSERT INTO purchase SELECT i, i / 25, (i * 7919) % 3200 FROM n;
"""


class Postgres:
    """Runs and counts queries on a server, each on a connection of a pool."""

    orders = "SELECT customer FROM purchase WHERE page = %s ORDER BY id"
    one = "SELECT name FROM customer WHERE id = %s"
    many = "SELECT id, name FROM customer WHERE id = ANY(%s)"

    def __init__(self, pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]], version: int) -> None:
        self.title = f"PostgreSQL {version // 10000}, {CONNECTIONS} connections"
        self.queries = 0
        self._pool = pool

    async def rows(self, query: str, argument: int | list[int]) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        self.queries += 1
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, [argument])
            return await cursor.fetchall()


class Sqlite:
    """Runs and counts the same queries in SQLite, in this process."""

    orders = Postgres.orders.replace("%s", "?")
    one = Postgres.one.replace("%s", "?")
    many = "SELECT id, name FROM customer WHERE id IN (SELECT value FROM json_each(?))"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.title = f"SQLite {sqlite3.sqlite_version} in memory, because there is no PostgreSQL server"
        self.queries = 0
        self._connection = connection

    async def rows(self, query: str, argument: int | list[int]) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        self.queries += 1
        return self._connection.execute(query, [json.dumps(argument)]).fetchall()


class Shop:
    """Builds pages of orders; a page is a list of the names of its customers."""

    def __init__(self, database: Postgres | Sqlite) -> None:
        self.database = database

    async def name_alone(self, customer: int) -> str | None:
        """Return the name of a customer, with its own query."""
        rows = await self.database.rows(self.database.one, customer)
        return rows[0][0] if rows else None

    # With two batches at once, the database runs one query while the callers of the other continue.
    @microbatch(max_size=500, concurrency=2)
    async def name(self, customers: list[int]) -> list[str | None]:
        """Return the names of customers."""
        # The database returns rows in its own order, and no row for a missing customer.
        names: dict[int, str] = dict(await self.database.rows(self.database.many, customers))
        return [names.get(customer) for customer in customers]

    async def page(self, number: int, name: Callable[[int], Awaitable[str | None]]) -> list[str | None]:
        """Return a page. This code makes N+1 lookups, and need not change."""
        orders = await self.database.rows(self.database.orders, number)
        return [await name(customer) for (customer,) in orders]


@asynccontextmanager
async def database() -> AsyncIterator[Postgres | Sqlite]:
    """Provide a database with orders and customers, and remove them at the end."""
    try:
        server = await psycopg.AsyncConnection.connect(autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        with closing(sqlite3.connect(":memory:")) as db:
            db.executescript(TABLES)
            yield Sqlite(db)
        return
    path = f"-c search_path={SCHEMA}"
    options = {"autocommit": True, "options": path}
    async with server:
        await server.execute(f"CREATE SCHEMA {SCHEMA}; SET search_path TO {SCHEMA}; {TABLES}; ANALYZE")
        try:
            async with AsyncConnectionPool(kwargs=options, min_size=CONNECTIONS, open=False) as pool:
                await pool.wait()
                yield Postgres(pool, server.info.server_version)
        finally:
            await server.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


async def build(label: str, shop: Shop, name: Callable[[int], Awaitable[str | None]]) -> list[list[str | None]]:
    """Return all pages, built at the same time, and print the number of queries and the time."""
    queries, start = shop.database.queries, perf_counter()
    pages = await asyncio.gather(*(shop.page(number, name) for number in range(PAGES)))
    print(f"{label:<10}{shop.database.queries - queries:>8}{perf_counter() - start:>10.3f} s")
    return pages


async def main() -> None:
    """Build all pages with and without batches, and compare."""
    async with database() as db:
        shop = Shop(db)
        print(f"{db.title}\n\n{'':<10}{'queries':>8}{'time':>12}")
        expected = await build("N+1", shop, shop.name_alone)
        pages = await build("batched", shop, shop.name)
    stats = shop.name.batch_stats
    calls = sum(map(len, pages))

    print(f"\n{stats}\n")
    missing = sum(page.count(None) for page in pages)
    print(f"calls made: {calls}, total_items: {stats.total_items}, of them None: {missing}")
    print(f"queries saved: {calls - stats.total_batches} of {PAGES + calls}")
    if pages != expected:
        sys.exit("pages differ from those with one query for each customer")
    if stats.total_items != calls:
        sys.exit("total_items is not the number of calls made")
    print(f"All pages are equal to those with one query for each customer ({PAGES} of {PAGES}).")


if __name__ == "__main__":
    asyncio.run(main())
