"""Look up single rows all over a program in few queries.

The question: how many queries are left of the N+1 query problem when lookups travel together?

Code that handles one thing at a time looks up one row at a time, and the database gets as many queries as there are
things; that is the problem. Here 64 threads ask for the names of characters, one by one, and what they ask for
meanwhile travels in one ``WHERE id IN (...)``. Many numbers are no character, and the answer to those is ``None``.

Queries are counted by SQLite itself. Time is not compared: this database is in the same process, where a query costs
next to nothing. Over a network each query that is saved is a round trip that is saved.

Run it with ``python examples/lookup.py``; it needs nothing but batchify.
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

# Every statement that was run through the batched function, as SQLite tells it.
batched_queries: list[str] = []


@cache
def connection() -> sqlite3.Connection:
    """Connect to the database at the first query.

    sqlite3 refuses a connection on any thread but the one that opened it. With ``concurrency=1``, the default, the
    batch function always runs on one and the same thread, and so does this, which is only called from there.
    """
    db = sqlite3.connect(DATABASE, uri=True)
    db.set_trace_callback(batched_queries.append)
    return db


# A query may have no more variables than the SQLite library was built for: by default 32,766, and 999 before version
# 3.32. With max_size below both, no crowd of callers makes a query that SQLite refuses.
@microbatch(max_size=500)
def name_of(ids: list[int]) -> list[str | None]:
    """Return the name of each character, ``None`` for a number that is no character."""
    marks = ", ".join("?" * len(ids))
    rows = connection().execute(f"SELECT id, name FROM character WHERE id IN ({marks})", ids)  # noqa: S608  # only "?"
    # The database returns rows in its own order, and none for ids it does not have.
    names: dict[int, str] = dict(rows)
    return [names.get(each) for each in ids]


def fill(db: sqlite3.Connection) -> int:
    """Put the characters that Python knows into the database; return how many they are."""
    rows = [(number, known) for number in NUMBERS if (known := name(chr(number), None))]
    with db:
        db.execute("CREATE TABLE character (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        db.executemany("INSERT INTO character VALUES (?, ?)", rows)
    return len(rows)


def one_by_one(db: sqlite3.Connection, ids: list[int]) -> tuple[list[str | None], int]:
    """Return the names, looked up with a query for each, and the number of queries."""
    queries: list[str] = []
    db.set_trace_callback(queries.append)
    rows = [db.execute("SELECT name FROM character WHERE id = ?", (each,)).fetchone() for each in ids]
    return [row and row[0] for row in rows], len(queries)


def from_threads(ids: list[int]) -> list[str | None]:
    """Return the names, asked for one by one from many threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(name_of, ids))


def main() -> None:
    """Look up all numbers in both ways, and compare."""
    ids = Random(0).sample(NUMBERS, len(NUMBERS))  # noqa: S311  # shuffled, not secret
    # A database in memory lives as long as a connection to it does.
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
    print(f"Names are equal to those looked up one by one, in the same order ({len(ids)} of {len(ids)}).")


if __name__ == "__main__":
    main()
