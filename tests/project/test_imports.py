"""The cost of an import. The layers are contracts of import-linter, in ``pyproject.toml``."""

from tests.kit.processes import printed_by

HEAVY = ["asyncio", "numpy", "rich", "matplotlib", "pandas", "torch", "prometheus_client", "opentelemetry", "uvloop"]


def loaded(code):
    """Return the heavy modules that a fresh interpreter loads while it runs ``code``."""
    names = printed_by(f"import sys\n{code}\nprint(*sys.modules)").split()
    return sorted({name.split(".")[0] for name in names} & set(HEAVY))


def test_importing_the_package_is_light():
    """``import batchify`` loads neither asyncio nor an optional dependency."""
    assert [] == loaded("import batchify")


def test_importing_our_own_modules_is_light():
    """If wrapt is imported already, with all its own imports, ``import batchify`` loads no heavy module."""
    forget = "for name in [name for name in sys.modules if name.split('.')[0] == 'asyncio']: del sys.modules[name]"
    assert [] == loaded(f"import wrapt\n{forget}\nimport batchify")


def test_threads_alone_do_not_need_asyncio():
    """An engine of threads that answers a call and stops loads no asyncio."""
    use = "batcher = SyncMicrobatcher(list)\nassert batcher.submit(1) == 1\nbatcher.stop()"
    assert [] == loaded(f"from batchify import SyncMicrobatcher\n{use}")


def test_a_call_does_not_wait_for_an_import_of_asyncio():
    """A call of an engine of threads is answered while another thread is importing asyncio."""
    script = """
        import sys
        from types import ModuleType
        from batchify import SyncMicrobatcher

        # An import begins with an empty module.
        sys.modules["asyncio"] = ModuleType("asyncio")
        print(SyncMicrobatcher(list).submit(1))
    """
    assert "1\n" == printed_by(script)


def test_a_part_of_a_heavy_module_counts():
    """The import of a submodule counts as one of its package."""
    assert ["asyncio"] == loaded("import asyncio.events")


def test_importing_the_command_does_not_run_it():
    """A tool that imports every module of the package does not start the command line."""
    assert "" == printed_by("import batchify.__main__")
