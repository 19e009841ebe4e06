"""Serve pages that look up one row at a time, with few round trips to PostgreSQL.

The question: how many queries, and how much time, does the N+1 query problem cost where each query is a round trip?

A shop shows orders. A page takes one query for its orders, and one for the customer of each: N+1 queries. Here pages
are tasks that share a pool of connections. Each asks for one customer at a time, and what all of them ask for meanwhile
travels in one ``WHERE id = ANY(...)``. Some customers are no longer there, and the answer to those is ``None``.

Run it with ``python examples/postgres.py``; it needs the packages ``psycopg`` and ``psycopg-pool``. The server is the
one that libpq finds, by default or by variables like ``PGHOST``; what is made there is one schema, which is dropped in
the end. Where there is no server SQLite takes its place, so that queries can be counted; but it is no round trip away.
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
# Of the customers that orders are from, every sixteenth is no longer there.
TABLES = """
    CREATE TABLE customer (id integer PRIMARY KEY, name text NOT NULL);
    CREATE TABLE purchase (id integer PRIMARY KEY, page integer NOT NULL, customer integer NOT NULL);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3199)
    INSERT INTO customer SELECT i, 'customer ' || i FROM n WHERE i % 16 > 0;
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 4999)
    INSERT INTO purchase SELECT i, i / 25, (i * 7919) % 3200 FROM n;
"""


class Postgres:
    """Runs queries on a server, each on a connection from a pool, and counts them."""

    orders = "SELECT customer FROM purchase WHERE page = %s ORDER BY id"
    one = "SELECT name FROM customer WHERE id = %s"
    many = "SELECT id, name FROM customer WHERE id = ANY(%s)"

    def __init__(self, pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]], version: int) -> None:
        self.title = f"PostgreSQL {version // 10000}, {CONNECTIONS} connections"
        self.queries = 0
        self._pool = pool

    async def rows(self, query: str, argument: int | list[int]) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds."""
        self.queries += 1
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, [argument])
            return await cursor.fetchall()


class Sqlite:
    """Does the same with SQLite, in this process."""

    orders = Postgres.orders.replace("%s", "?")
    one = Postgres.one.replace("%s", "?")
    many = "SELECT id, name FROM customer WHERE id IN (SELECT value FROM json_each(?))"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.title = f"SQLite {sqlite3.sqlite_version}, in memory, as there is no PostgreSQL server"
        self.queries = 0
        self._connection = connection

    async def rows(self, query: str, argument: int | list[int]) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds."""
        self.queries += 1
        return self._connection.execute(query, [json.dumps(argument)]).fetchall()


class Shop:
    """Makes pages of orders, each a list of the names of its customers."""

    def __init__(self, database: Postgres | Sqlite) -> None:
        self.database = database

    async def name_alone(self, customer: int) -> str | None:
        """Return the name of a customer, with a query of its own."""
        rows = await self.database.rows(self.database.one, customer)
        return rows[0][0] if rows else None

    # With two batches at once, one is on its way while the answer to the other is handed out.
    @microbatch(max_size=500, concurrency=2)
    async def name(self, customers: list[int]) -> list[str | None]:
        """Return the names of customers."""
        # The database returns rows in its own order, and none for customers it does not have.
        names: dict[int, str] = dict(await self.database.rows(self.database.many, customers))
        return [names.get(customer) for customer in customers]

    async def page(self, number: int, name: Callable[[int], Awaitable[str | None]]) -> list[str | None]:
        """Return a page: the code that has the problem, and stays as it is."""
        orders = await self.database.rows(self.database.orders, number)
        return [await name(customer) for (customer,) in orders]


@asynccontextmanager
async def database() -> AsyncIterator[Postgres | Sqlite]:
    """Return a database with orders and customers; what was made for it is gone in the end."""
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


async def serve(way: str, shop: Shop, name: Callable[[int], Awaitable[str | None]]) -> list[list[str | None]]:
    """Return all pages, made at the same time; print how many queries and how long they took."""
    queries, start = shop.database.queries, perf_counter()
    pages = await asyncio.gather(*(shop.page(number, name) for number in range(PAGES)))
    print(f"{way:<10}{shop.database.queries - queries:>8}{perf_counter() - start:>10.3f} s")
    return pages


async def main() -> None:
    """Make all pages in both ways, and compare."""
    async with database() as db:
        shop = Shop(db)
        print(f"{db.title}\n\n{'':<10}{'queries':>8}{'time':>12}")
        expected = await serve("N+1", shop, shop.name_alone)
        pages = await serve("batched", shop, shop.name)
    stats = shop.name.batch_stats
    calls = sum(map(len, pages))

    print(f"\n{stats}\n")
    missing = sum(page.count(None) for page in pages)
    print(f"calls made: {calls}, total_items: {stats.total_items}, of them None: {missing}")
    print(f"queries saved: {calls - stats.total_batches} of {PAGES + calls}")
    if pages != expected:
        sys.exit("pages differ from those made with a query for each customer")
    if stats.total_items != calls:
        sys.exit("total_items is not the number of calls made")
    print(f"Pages are equal to those made with a query for each customer ({PAGES} of {PAGES}).")


if __name__ == "__main__":
    asyncio.run(main())
