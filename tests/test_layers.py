"""Who may import whom. The tables are the architecture: a change of them is a change of the design."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import batchify

PACKAGE = Path(batchify.__file__).parent
MODULES = {path.stem: path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py")}

# Module -> the modules of the package that it may import. What only a type checker imports does not count.
MAY = {
    "errors": set(),
    "_types": set(),
    "_stream_types": {"_outcome", "_types"},
    "_timing": set(),
    "_tokens": set(),
    "_options": {"_tokens"},
    "_signature": {"_executors", "_options"},
    "_current": set(),
    "_registry": set(),
    "_totals": {"_registry", "_stats"},
    "_render": set(),
    "_waiters": set(),
    "_executors": {"_current", "errors"},
    "_config": {"_executors", "_signature"},
    "_batch": set(),
    "_slots": {"_timing"},
    "_core": {"_batch", "_slots"},
    "_places": set(),
    "_groups": {"_batch", "_places", "_slots"},
    "_demands": {"_core", "_current", "_groups", "_places", "_tokens"},
    "_parts": set(),
    "_watch": set(),
    "_report": set(),
    "_outcome": {"errors"},
    "_stats": {"_render"},
    "_drain": set(),
    "_chain": {"errors"},
    "_bridge": {"_chain", "_current", "_drain", "_outcome"},
    "_loop": {"_batch", "_core", "_current", "_demands", "_outcome", "_parts", "_report", "_stats", "errors"},
    "_offload": {"_outcome"},
    "_bells": set(),
    "_workers": {
        "_batch",
        "_bells",
        "_core",
        "_current",
        "_demands",
        "_outcome",
        "_parts",
        "_report",
        "_stats",
        "_watch",
        "errors",
    },
    "_asyncio": {
        "_chain",
        "_config",
        "_current",
        "_demands",
        "_drain",
        "_loop",
        "_offload",
        "_registry",
        "_signature",
        "_stats",
        "errors",
    },
    "_threads": {
        "_bridge",
        "_chain",
        "_config",
        "_current",
        "_executors",
        "_registry",
        "_signature",
        "_stats",
        "_waiters",
        "_workers",
        "errors",
    },
    "_streams": {"_chain", "_current", "_demands", "_outcome", "errors"},
    "_loop_streams": {"_asyncio", "_bridge", "_current", "_outcome", "_streams", "_workers"},
    "_thread_streams": {"_current", "_loop_streams", "_streams", "_threads", "_workers"},
    "_instances": {"_registry", "_signature", "_stats", "errors"},
    "_batched": {"_config", "_demands", "_registry", "_stats"},
    "_binding": {"_batched", "_instances", "_signature"},
    "_decorator": {
        "_asyncio",
        "_batched",
        "_binding",
        "_config",
        "_loop_streams",
        "_signature",
        "_thread_streams",
        "_threads",
    },
    "_crossing": set(),
    "_simulate": {"_config", "_core", "_stats"},
    "_cost": {"_crossing", "_simulate"},
    "_target": {"_batched", "_binding", "_decorator", "_signature"},
    "_tune": {"_cost"},
    "_measure": {"_cost", "_decorator", "_target", "errors"},
    "_bench": {"_stats"},
    "_tell": {"_render"},
    "_screen": {"_tell"},
    "_plot": set(),
    "_html": {"_tell"},
    "_ask": {"_config"},
    "__main__": {
        "_ask",
        "_bench",
        "_cost",
        "_html",
        "_measure",
        "_plot",
        "_screen",
        "_simulate",
        "_target",
        "_tell",
        "_tune",
    },
    "prometheus": {"_stats", "_totals"},
    "_spans": {"__init__", "_batched", "_current", "_signature"},
    "opentelemetry": {"__init__", "_spans", "_stats", "_totals"},
    "_inline": {
        "_asyncio",
        "_current",
        "_demands",
        "_loop",
        "_offload",
        "_outcome",
        "_registry",
        "_threads",
        "_workers",
    },
    "testing": {"_current", "_inline"},
    "_plugin": {"testing"},
    "__init__": {
        "_asyncio",
        "_batch",
        "_current",
        "_decorator",
        "_outcome",
        "_registry",
        "_report",
        "_simulate",
        "_stats",
        "_threads",
        "errors",
    },
}
# Third parties, and who may import them.
GUESTS = {
    "wrapt": {"_batched"},
    "prometheus_client": {"prometheus"},
    "opentelemetry": {"_spans", "opentelemetry"},
    "pytest": {"_plugin"},
    "rich": {"_screen"},
    "matplotlib": {"_plot"},
}
# Parts of the standard library that stand for something to know, and who may import them: nobody else does.
KNOWING = {
    # event loops
    "asyncio": {
        "_asyncio",
        "_bench",
        "_bridge",
        "_drain",
        "_inline",
        "_loop",
        "_loop_streams",
        "_measure",
        "_offload",
        "testing",
    },
    # threads, and locks
    "threading": {
        "_bells",
        "_drain",
        "_registry",
        "_report",
        "_stats",
        "_thread_streams",
        "_threads",
        "_totals",
        "_waiters",
        "_watch",
        "_workers",
        "testing",
    },
    "_thread": {"_threads", "_workers"},
    "concurrent": {"_config", "_executors", "_offload", "_waiters"},
    # clocks
    "time": {"_inline", "_loop", "_measure", "_workers"},
    "datetime": set(),
    # the process, and its end
    "os": {"_executors", "_registry"},
    "signal": set(),
    "atexit": {"_thread_streams", "_threads"},
}


def imports(source):
    """Return the full names of what a module imports when it runs, at its top or in a function."""
    found = []
    todo = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["batchify" * bool(node.level), node.module]))
            found += [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            todo += node.orelse
            continue
        todo += ast.iter_child_nodes(node)
    return found


def inside(source, modules):
    """Return the modules of the package that a module imports; a name of the package itself is its ``__init__``."""
    names = [name.split(".") for name in imports(source)]
    parts = [(name[1:] or ["__init__"])[0] for name in names if name[0] == "batchify"]
    return {part if part in modules else "__init__" for part in parts}


def outside(source):
    """Return the top-level modules of others that a module imports."""
    return {name.split(".")[0] for name in imports(source)} - {"batchify", "__future__"}


def cycle(graph):
    """Return modules of which each imports the next, and the last the first; nothing if there are none."""
    for start in graph:
        paths = [[start]]
        seen = set()
        while paths:
            path = paths.pop()
            for module in sorted(graph[path[-1]]):
                if module == start:
                    return path
                if module not in seen:
                    seen.add(module)
                    paths.append([*path, module])
    return []


def test_every_module_is_in_the_table():
    """A new module says whom it may import, and one that is gone says nothing."""
    assert set(MAY) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_no_more_than_it_may(module):
    """A module imports only those modules of the package that the table allows."""
    assert set() == inside(MODULES[module], MODULES) - MAY.get(module, set())


@pytest.mark.parametrize("module", MODULES)
def test_a_module_knows_no_more_than_it_may(module):
    """Only those modules know of clocks, threads and event loops that the table names."""
    known = outside(MODULES[module])
    assert set() == {name for name, importers in KNOWING.items() if name in known and module not in importers}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_no_guests(module):
    """Only those modules import third parties that the table names."""
    guests = outside(MODULES[module]) - sys.stdlib_module_names
    assert set() == {name for name in guests if module not in GUESTS.get(name, set())}


def test_imports_go_down_only():
    """No two modules import each other, not by way of others either."""
    assert [] == cycle({module: inside(source, MODULES) for module, source in MODULES.items()})


def test_the_table_has_no_cycle():
    """The table does not allow a cycle that nobody has made yet."""
    assert [] == cycle(MAY)


# What the tests above look with.

SAMPLE = dedent(
    """
    import os.path, json
    from typing import TYPE_CHECKING
    from batchify import _outcome, microbatch
    from batchify._core import Core
    from . import _timing
    from ._stats import Stats

    if TYPE_CHECKING:
        import asyncio
        from batchify import _loop
    else:
        import queue

    if sys.platform == "linux":
        import fcntl

    def late():
        import threading
        from batchify.errors import closed
    """
)


def test_imports_of_others_are_found():
    """Found are imports at the top, under a condition and in functions, not those for type checkers only."""
    assert {"os", "json", "typing", "queue", "fcntl", "threading"} == outside(SAMPLE)


def test_imports_of_the_package_are_found():
    """Found are modules and names of modules, absolute and relative; a name of the package is one of ``__init__``."""
    expected = {"_outcome", "__init__", "_core", "_timing", "_stats", "errors"}
    assert expected == inside(SAMPLE, {"_outcome", "_core", "_timing", "_stats", "errors", "_loop"})


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}, []),
        ({"a": {"a"}}, ["a"]),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c"]),
        ({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"a"}}, ["a", "b", "d"]),
    ],
)
def test_cycles_are_found(graph, expected):
    """A cycle is found wherever it begins, and modules that two others import are none."""
    assert expected == cycle(graph)


# What an import costs.

HEAVY = ["asyncio", "numpy", "rich", "matplotlib", "pandas", "torch", "prometheus_client", "opentelemetry", "uvloop"]


def loaded(code):
    """Return which of the heavy modules a fresh interpreter has loaded after it ran ``code``."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # ours
    return sorted({name.split(".")[0] for name in done.stdout.split()} & set(HEAVY))


def test_importing_the_package_is_light():
    """``import batchify`` loads neither asyncio nor anything that only some of its users have."""
    assert [] == loaded("import batchify")


def test_importing_our_own_modules_is_light():
    """With wrapt there already, whatever it may load itself, ``import batchify`` loads nothing heavy on its own."""
    forget = "for name in [name for name in sys.modules if name.split('.')[0] == 'asyncio']: del sys.modules[name]"
    assert [] == loaded(f"import wrapt\n{forget}\nimport batchify")


def test_the_measure_of_light_is_true():
    """What is loaded is seen, also when it is only a part of something heavy."""
    assert ["asyncio"] == loaded("import asyncio.events")
