"""Check that the tests, files, links, make targets and words in the README and docs exist and are allowed."""

import ast
import re

import msgspec
import pytest

from executor_host import settings
from tests.support.markdown import DOCUMENTS, ROOT, cells, code_blocks, read
from tests.support.shell_blocks import LONG_RUNNING, NEEDS_AWS, shell_blocks

README = read("README.md")
THREAT_MODEL = read("docs/threat-model.md")
TARGETS = set(re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.MULTILINE))
MAX_README_LINES = 150

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])


def threat_rows():
    """Return the rows of all tables with the columns Attack, Barrier and Test."""
    tables = re.findall(r"^\| Attack \| Barrier \| Test \|\n\|[-|]+\n((?:\|.*\n)+)", THREAT_MODEL, re.MULTILINE)
    return [cells(line) for rows in tables for line in rows.splitlines()]


def named_tests(text):
    """Return the (file, function) pairs of the tests that a text names."""
    return re.findall(r"([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)", text)


def functions_of(path):
    """Return the names of the top-level functions of a module."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def headings(path):
    """Return the anchors that GitHub generates for the headings of a document."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("row", threat_rows(), ids=[row[0][:60] for row in threat_rows()])
def test_every_threat_has_a_test(row):
    assert len(row) == 3
    assert named_tests(row[2])


@each_document
def test_referenced_tests_exist(path):
    named = named_tests(path.read_text())
    assert [test for test in named if test[1] not in functions_of(ROOT / "tests" / test[0])] == []


def test_every_security_test_is_in_threat_model():
    files = (ROOT / "tests/security").glob("test_*.py")
    written = {
        (f"security/{path.name}", name) for path in files for name in functions_of(path) if name.startswith("test_")
    }
    assert written - set(named_tests(THREAT_MODEL)) == set()


@each_document
def test_relative_links_resolve(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    relative = [link for link in links if not link.startswith(("http:", "https:"))]
    for link in relative:
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@each_document
def test_referenced_make_targets_exist(path):
    text = path.read_text()
    named = re.findall(r"`make ([a-z0-9-]+)", text) + re.findall(r"^make ([a-z0-9-]+)", text, re.MULTILINE)
    assert set(named) - TARGETS == set()


def test_referenced_files_exist():
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"`((?:[a-z_.]+/)*[a-z_]+\.(?:py|md|json))`", path.read_text())
    }
    entries = [entry for entry in ROOT.iterdir() if entry.name != ".venv"]
    present = {str(path.relative_to(ROOT)) for entry in entries for path in (entry, *entry.rglob("*"))}
    missing = {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in present)}
    assert missing - {"main.py"} == set()


def test_layout_lists_every_folder_with_sources():
    (layout,) = [block for block in code_blocks(README, "") if block.startswith("lambda_app/")]
    folders = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py")}
    assert folders <= set(re.findall(r"^([a-z_]+)/", layout, re.MULTILINE))


def test_readme_is_short():
    assert len(README.splitlines()) <= MAX_README_LINES


def test_readme_links_every_reference_page():
    pages = {f"docs/{path.relative_to(ROOT / 'docs')}" for path in (ROOT / "docs").rglob("*.md")}
    pages = {page for page in pages if not page.startswith("docs/decisions/")}
    assert pages - set(re.findall(r"\]\(([^)#\s]+)", README)) == set()


@pytest.mark.parametrize("prefix", [*NEEDS_AWS, *LONG_RUNNING])
def test_listed_prefix_is_documented(prefix):
    assert shell_blocks((prefix,))


@pytest.mark.parametrize("block", shell_blocks(NEEDS_AWS).values(), ids=shell_blocks(NEEDS_AWS))
def test_command_that_needs_aws_uses_existing_names(block):
    parameters = set(re.findall(r"^  (\w+):", read("infra/template.yaml"), re.MULTILINE))
    assert set(re.findall(r'[" ](\w+)=[\w:]*-?…', re.sub(r"-e \S+", "", block))) <= parameters
    agent_settings = {field.encode_name for field in msgspec.structs.fields(settings.Settings)}
    assert set(re.findall(r"-e (\w+)=", block)) <= agent_settings | {"AWS_DEFAULT_REGION"}
