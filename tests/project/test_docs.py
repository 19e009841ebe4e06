"""The documentation: its site builds, its code runs, and it describes every public name."""

from __future__ import annotations

import html
import inspect
import re

import pytest

import batchify
import batchify.opentelemetry
import batchify.prometheus
import batchify.testing
from batchify._decorator.proxy import Batched
from tests.kit.examples import needs
from tests.kit.processes import ROOT, printed, run

DOCS = ROOT / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
WITH_CODE = [
    pytest.param(name, marks=needs("celery") if name == "recipes" else ())
    for name, text in PAGES.items()
    if "```python\n" in text
]
# The output that a page promises: behind the code, or on a line of its own.
SAID = re.compile(r"^.*print\(.*\)  # (.*)|^ *# prints: (.*)", re.MULTILINE)
# The first line of a quotation from an example.
QUOTED = re.compile(r"""^```python title="(examples/[^"]*)"\n""", re.MULTILINE)
# The addresses that a browser fetches by itself, unlike plain links.
FETCHED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="?([^"\s>]+)|<link\b[^>]*\bhref="?([^"\s>]+)""")
IMPORTED = re.compile(r"""(?:url\(|@import\s+)["']?(?:https?:)?//[^)"']+""")


def program(page):
    """Return the Python blocks of a page as one program, each line at its line number on the page."""
    lines, inside = [], False
    for line in page.splitlines():
        inside = inside and line != "```"
        lines.append(line if inside else "")
        inside = inside or line == "```python"
    return "\n".join(lines)


@pytest.mark.parametrize("name", WITH_CODE)
def test_a_page_runs(name):
    """The blocks of a page run in order, as one program, without a warning, and print the output in their comments."""
    code = program(PAGES[name])
    # The page opens a connection for the life of the program, and Python 3.13 warns at its end.
    quiet = ["-W", "error", "-W", "ignore:unclosed database:ResourceWarning"]
    output = printed(*quiet, "-c", code, traced=False)
    said = [behind or alone for behind, alone in SAID.findall(code)]
    assert [] == [line for line in said if line not in output.splitlines()]
    assert said


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_found(name):
    """Every Python fence stands at the beginning of a line, where the pattern finds it, and has an end."""
    fences = [fence for fence in re.findall(r"^.*```.*$", PAGES[name], re.MULTILINE) if not QUOTED.match(f"{fence}\n")]
    quotes = QUOTED.findall(PAGES[name])
    assert {"```python"} >= {fence for fence in fences if "py" in fence.lower()}
    assert 0 == (len(fences) + len(quotes)) % 2


@pytest.mark.parametrize("name", PAGES)
def test_quotations_are_exact(name):
    """A quotation is a part of its example, and the example has a test."""
    for example, quote in re.findall(QUOTED.pattern + r"(.*?)^```$", PAGES[name], re.MULTILINE | re.DOTALL):
        assert quote in (ROOT / example).read_text(encoding="utf-8")


def test_the_tests_of_the_page_about_tests(tmp_path):
    """The pytest tests on the page about tests pass."""
    path = tmp_path / "test_page.py"
    path.write_text(program(PAGES["testing"]), encoding="utf-8")
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error"]
    done = run("-m", "pytest", *options, path.name, cwd=tmp_path, traced=False)
    assert "2 passed" in done.stdout, done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, and return its folder."""
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "mkdocs", "build", "--strict", "-f", DOCS / "site" / "mkdocs.yml", "-d", folder]
    # The announcement of mkdocs's authors at each start is no warning about the site. A quiet build counts no warnings.
    done = run(*command, traced=False, NO_MKDOCS_2_WARNING="1")
    assert 0 == done.returncode, done.stderr
    return folder


def test_the_site_builds(site):
    """The site builds without a warning: every page is in the navigation, and every link has a target."""
    assert set(PAGES) <= {path.stem for path in site.glob("*.html")}


def test_the_site_lists_its_pages_for_language_models(site):
    """``llms.txt`` has one line with a link and a description for each page, and only links that have a target."""
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# batchify\n\n> ")
    listed = re.findall(r"^- \[.+\]\((.+)\): \S.+$", text, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    assert {f"{name}.html" for name in [*PAGES, "changelog", "examples/tokenizer"]} <= set(listed)
    assert all((site / link).is_file() for link in listed)


def test_the_changelog_is_a_page(site):
    """The heading of a release leads to the comparison with the release before it."""
    page = (site / "changelog.html").read_text(encoding="utf-8")
    assert f"compare/v0.1.0...v{batchify.__version__}" in page


def test_the_changelog_describes_the_version():
    """The newest release has the version of the package, and each release has a link to what changed in it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(.+)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert ["Unreleased", batchify.__version__] == releases[:2]
    assert [release.lower() for release in releases] == re.findall(r"^\[(.+)\]: ", text, re.MULTILINE)


def public():
    """Return every public object, by its address in the reference."""
    modules = [batchify, batchify.testing, batchify.opentelemetry]
    named = {f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in module.__all__}
    named["batchify.prometheus.BatchCollector"] = batchify.prometheus.BatchCollector
    members = ["__call__", *(name for name in vars(Batched) if not name.startswith("_"))]
    return named | {f"{Batched.__module__}.Batched.{name}": getattr(Batched, name) for name in members}


def shown(page):
    """Return the text of a page without its markup."""
    return " ".join(html.unescape(re.sub(r"<(style|script).*?</\1>|<[^>]+>", "", page, flags=re.DOTALL)).split())


@pytest.fixture(scope="module")
def reference(site):
    """Return the pages of the reference as one."""
    return "".join(path.read_text(encoding="utf-8") for path in sorted(site.glob("api*.html")))


@pytest.mark.parametrize(("address", "thing"), public().items(), ids=public())
def test_a_public_name_is_described(reference, address, thing):
    """The reference has each public name and each member of a decorated function, with its docstring."""
    assert f'id="{address}"' in reference
    text = shown(reference)
    first = inspect.getdoc(thing).partition("\n\n")[0]
    assert " ".join(first.replace("`", "").split()) in text


def test_the_reference_has_no_internal_name(reference):
    """No signature and no description shows a private module, or a call whose arguments could be anything."""
    assert [] == re.findall(r"\b_[a-z]+\.\w+|Unpack\[|\w+\(\*args, \*\*kwargs\)", shown(reference))


def test_the_search_needs_no_server(site):
    """The index of the search is a script, which a page that is opened from a file can load."""
    assert (site / "search" / "search_index.js").is_file()
    assert "site/iframe-worker.js" in (site / "index.html").read_text(encoding="utf-8")


def test_the_playground_needs_the_package_alone(site):
    """The program of the playground runs with the archive of the package, and without any other package."""
    script = (DOCS / "site" / "playground.js").read_text(encoding="utf-8")
    code = script.partition("const PROGRAM = `")[2].partition("`;")[0]
    path = str(site / "pyodide" / "batchify.zip")
    ask = "print(*[way['late'] for way in json.loads(compare(4.1, 7.2, 300))])"
    output = printed("-I", "-S", "-c", f"import sys\nsys.path.insert(0, {path!r})\n{code}\n{ask}", traced=False)
    assert "True False False False" == output.strip()


def test_nothing_is_fetched_from_elsewhere(site):
    """The site needs no network: it has its own pages, scripts and styles."""
    fetched = {
        address
        for path in site.rglob("*.html")
        for found in FETCHED.findall(path.read_text(encoding="utf-8"))
        for address in found
    }
    assert set() == {address for address in fetched if "//" in address}
    assert [] == [path.name for path in site.rglob("*.css") if IMPORTED.search(path.read_text(encoding="utf-8"))]


def test_the_benchmark_is_drawn(site):
    """The page of benchmarks has the tables of the benchmark's README, with a bar for each ratio."""
    page = (site / "benchmarks.html").read_text(encoding="utf-8")
    assert 'class="ratio"' in page
    assert [] == re.findall(r">\w+</a></p>", page)


def test_a_drawing_is_part_of_its_page(site):
    """A drawing has the colours of the page, and its styles apply to nothing else."""
    page = (site / "timing.html").read_text(encoding="utf-8")
    assert '<svg id="timing"' in page
    assert "[data-md-color-scheme=slate] #timing{" in page
