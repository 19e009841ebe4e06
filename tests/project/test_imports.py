"""The cost of an import. The layers are contracts of import-linter, in ``pyproject.toml``."""

from tests.kit.processes import printed, printed_by

HEAVY = [
    "asyncio",
    "concurrent",
    "dataclasses",
    "inspect",
    "logging",
    "matplotlib",
    "numpy",
    "opentelemetry",
    "pandas",
    "prometheus_client",
    "rich",
    "torch",
    "uvloop",
    "wrapt",
]


def modules(code, before="pass"):
    """Return the modules that a fresh interpreter loads while it runs ``code``, after it ran ``before``."""
    script = f"{before}\nimport sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    # The measurement of coverage imports most of them, too.
    return printed("-W", "error", "-c", script, traced=False).split()


def loaded(code, before="pass"):
    """Return the heavy ones among them."""
    return sorted({name.split(".")[0] for name in modules(code, before)} & set(HEAVY))


def test_importing_the_package_is_light():
    """``import batchify`` loads no heavy module."""
    assert [] == loaded("import batchify")


def test_importing_the_package_loads_none_of_its_modules():
    """``import batchify`` loads no other module of the package, so that threads may import several of them at once."""
    assert ["batchify"] == [name for name in modules("import batchify") if name.startswith("batchify")]


def test_the_name_of_the_decorator_is_light():
    """``from batchify import microbatch`` loads neither wrapt nor asyncio; a decoration loads wrapt."""
    named = "from batchify import microbatch"
    assert set() == {"asyncio", "wrapt"} & set(loaded(named))
    assert "wrapt" in loaded("microbatch(lambda items: items)", before=named)


def test_decorating_a_def_function_does_not_need_asyncio():
    """If wrapt is imported already, with all its own imports, decorating a ``def`` function loads no asyncio."""
    forget = "for name in [name for name in sys.modules if name.split('.')[0] == 'asyncio']: del sys.modules[name]"
    decorate = "from batchify import microbatch\nmicrobatch(lambda items: items)"
    assert "asyncio" not in loaded(decorate, before=f"import sys, wrapt\n{forget}")


def test_threads_alone_do_not_need_asyncio():
    """An engine of threads that answers a call and stops loads no asyncio."""
    use = "batcher = SyncMicrobatcher(list)\nassert batcher.submit(1) == 1\nbatcher.stop()"
    assert "asyncio" not in loaded(f"from batchify import SyncMicrobatcher\n{use}")


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
    assert "asyncio" in loaded("import asyncio.events")


def test_importing_the_command_does_not_run_it():
    """A tool that imports every module of the package does not start the command line."""
    assert "" == printed_by("import batchify.__main__")
