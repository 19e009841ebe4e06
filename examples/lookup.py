"""Look up single rows from many threads with few queries.

This example shows how batching solves the N+1 query problem: code that handles one thing at a time makes one query for
each.

64 threads ask for the names of Unicode characters, one by one. The lookups that wait at the same time share one query,
``WHERE id IN (...)``. Some numbers are not characters, and their answer is ``None``.

SQLite counts the queries. The example does not compare times, because this database is in the same process, where a
query costs almost nothing. Over a network, each saved query saves a round trip.

Run it with ``python examples/lookup.py``; it needs no other package.
"""

from __future__ import annotations

import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from random import Random
from unicodedata import name, unidata_version

from batchify import microbatch

DATABASE = "file:characters?mode=memory&cache=shared"
NUMBERS = range(0x2000)
THREADS = 64
SHOWN = (0x41, 0x3C0, 0x378, 0x1E9E)

# Every statement of the batched function, recorded by SQLite.
batched_queries: list[str] = []


@cache
def connection() -> sqlite3.Connection:
    """Connect to the database at the first query.

    A sqlite3 connection works only on the thread that opened it. With ``concurrency=1``, the default, the batch
    function always runs on the same thread, and only the batch function calls this one.
    """
    db = sqlite3.connect(DATABASE, uri=True)
    db.set_trace_callback(batched_queries.append)
    return db


# SQLite limits the number of variables in a query, by default to 32,766, and before version 3.32 to 999. max_size stays
# below both limits.
@microbatch(max_size=500, keyed=True)
def name_of(ids: list[int]) -> dict[int, str | None]:
    """Return the name of each character, or ``None`` for a number that is not a character."""
    marks = ", ".join("?" * len(ids))
    rows = connection().execute(f"SELECT id, name FROM character WHERE id IN ({marks})", ids)  # noqa: S608  # only "?"
    # The database returns rows in its own order, and no row for a missing id.
    return dict.fromkeys(ids) | dict(rows)


def fill(db: sqlite3.Connection) -> int:
    """Insert the characters that Python knows, and return their number."""
    rows = [(number, known) for number in NUMBERS if (known := name(chr(number), None))]
    with db:
        db.execute("CREATE TABLE character (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        db.executemany("INSERT INTO character VALUES (?, ?)", rows)
    return len(rows)


def one_by_one(db: sqlite3.Connection, ids: list[int]) -> tuple[list[str | None], int]:
    """Return the names, looked up with one query for each, and the number of queries."""
    queries: list[str] = []
    db.set_trace_callback(queries.append)
    rows = [db.execute("SELECT name FROM character WHERE id = ?", (each,)).fetchone() for each in ids]
    return [row and row[0] for row in rows], len(queries)


def from_threads(ids: list[int]) -> list[str | None]:
    """Return the names, looked up one by one from many threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(name_of, ids))


def main() -> None:
    """Look up all numbers with and without batches, and compare."""
    ids = Random(0).sample(NUMBERS, len(NUMBERS))  # noqa: S311  # shuffled, not secret
    # A database in memory exists as long as it has a connection.
    with closing(sqlite3.connect(DATABASE, uri=True)) as db:
        print(f"{fill(db)} characters of Unicode {unidata_version} in the database\n")
        expected, queries = one_by_one(db, ids)
        names = from_threads(ids)
    stats = name_of.batch_stats

    found = dict(zip(ids, names, strict=True))
    for number in SHOWN:
        print(f"U+{number:04X}  {found[number]}")
    print(f"\n{stats}\n")
    print(f"calls made: {len(ids)}, total_items: {stats.total_items}, of them None: {names.count(None)}")
    print(f"queries without batching: {queries}")
    print(f"queries with batching: {len(batched_queries)}, each for {stats.avg_batch_size:.1f} ids on average")
    if names != expected:
        sys.exit("names differ from those looked up one by one")
    if stats.total_items != len(ids):
        sys.exit("total_items is not the number of calls made")
    if stats.total_batches != len(batched_queries):
        sys.exit("total_batches is not the number of queries")
    print(f"All names are equal to those looked up one by one ({len(ids)} of {len(ids)}).")


if __name__ == "__main__":
    main()
