"""The public names, which load on first use."""

import ast
import inspect
from pathlib import Path

import pytest

import batchify
from tests.kit.processes import printed_by


def imported_for_checkers():
    """Return the public names that type checkers see, and the modules that they come from."""
    parsed = ast.parse(Path(batchify.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in parsed.body if isinstance(node, ast.If))
    return {imported.asname: node.module for node in block.body for imported in node.names}


def test_type_checkers_see_the_same_names():
    """The imports for type checkers have each public name, from the module that it loads from."""
    defined = {name: f"batchify.{module}" for name, module in batchify._MODULES.items()}
    assert {**defined, "errors": "batchify"} == imported_for_checkers()


@pytest.mark.parametrize("name", batchify.__all__)
def test_a_name_is_stored_at_its_first_use(name, monkeypatch):
    """The first use of a name stores its object, so that a later use is a plain access."""
    known = getattr(batchify, name)
    monkeypatch.delitem(vars(batchify), name)
    assert known is getattr(batchify, name)
    assert known is vars(batchify)[name]


def test_the_exceptions_are_found_by_the_name_of_their_module():
    """After ``import batchify``, ``batchify.errors`` needs no import of its own, as tracebacks show this name."""
    assert "batchify.errors\n" == printed_by("import batchify\nprint(batchify.errors.QueueFullError.__module__)")


def test_an_unknown_name_is_refused():
    """An unknown name gets Python's own message."""
    with pytest.raises(AttributeError, match=r"^module 'batchify' has no attribute 'microbach'$"):
        _ = batchify.microbach


def test_names_are_listed_before_their_first_use():
    """``dir()``, and so completion in a shell, lists the names that are not loaded yet, each once."""
    listed = printed_by("import batchify\nprint(*dir(batchify))").split()
    assert set(batchify.__all__) | {"__version__"} <= set(listed)
    assert len(set(listed)) == len(listed)


def test_a_star_import_loads_all_names():
    """``from batchify import *`` imports each public name."""
    script = "from batchify import *\nimport batchify\nprint(all(name in globals() for name in batchify.__all__))"
    assert "True\n" == printed_by(script)


def test_help_describes_all_names():
    """``help(batchify)`` shows the documentation of names that are not loaded yet."""
    shown = printed_by("import batchify\nhelp(batchify)")
    for thing in (batchify.microbatch, batchify.AsyncMicrobatcher, batchify.QueueFullError):
        assert inspect.getdoc(thing).partition("\n")[0] in shown


def test_a_reference_in_a_pickle_loads_its_name():
    """A pickle that refers to a public name loads in a process that did not import batchify."""
    script = "import pickle\nprint(pickle.loads(b'cbatchify\\nBatchStats\\n.').__name__)"
    assert "BatchStats\n" == printed_by(script)


def test_threads_may_use_names_for_the_first_time_at_once():
    """Threads that load all names at the same time, in opposite orders, get the same objects."""
    script = """
        import sys
        from concurrent.futures import ThreadPoolExecutor
        from threading import Barrier

        together = Barrier(2)

        def load(backwards):
            together.wait()
            import batchify

            names = sorted(batchify.__all__, reverse=backwards)
            return {name: getattr(batchify, name) for name in names}

        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(2) as threads:
            one, other = threads.map(load, [False, True])
        print(all(one[name] is other[name] for name in one))
    """
    assert "True\n" == printed_by(script)
