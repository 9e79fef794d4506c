"""Reject words that hide who does what, in names and in prose. docs/glossary.md has the words to use instead."""

import ast
import os
import re
import statistics
import tokenize
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SKIPPED_FOLDERS = {".git", ".local", ".venv"}
TEXT_FILES = {".md", ".yaml", ".yml", ".toml", ".sh", ".service", ".in"}
TEXT_NAMES = {"Dockerfile", "Makefile"}
MAX_MEDIAN_NAME_CHARS = 45

BANNED_IN_NAMES = set(
    "nobody somebody anybody whoever told tells wanted given held made shown said mine anew found".split()
)
# "given" and "found" are ordinary English in a sentence; as names they say how a value was obtained, not what it is.
BANNED_IN_PROSE = re.compile(
    r"\b(?:nobody|somebody|anybody|whoever|told|tells|wanted|held|made|shown|said|mine|anew"
    r"|of\s+ours|so\s+many|what\s+is\s+no|how\s+it\s+is\s+then|in\s+vain)\b",
    re.IGNORECASE,
)
ALLOWED_IN_PROSE = re.compile(
    r"\bsaid of\b"  # how a dictionary introduces an adjective
    r"|```.*?```|`[^`]*`",  # code
    re.IGNORECASE | re.DOTALL,
)
ALLOWED_IN_NAMES = ("not_found", "NotFound", "NOT_FOUND")  # HTTP's and Docker's word


def area(path):
    """Return the part of the repository that a file belongs to: a folder of at most three levels."""
    return "/".join(path.relative_to(ROOT).parts[:-1][:3]) or "root"


def files():
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = set(subfolders) - SKIPPED_FOLDERS
        for path in (Path(folder, name) for name in names):
            if path != Path(__file__) and (path.suffix in {".py", *TEXT_FILES} or path.name in TEXT_NAMES):
                yield path


AREAS = {name: list(paths) for name, paths in groupby(sorted(files(), key=lambda path: (area(path), path)), key=area)}


def bound_names(tree):
    """Yield each name that a module binds, with its line. Imported names are those of others."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.keyword(arg=str(name)):
                yield name, node.value.lineno if isinstance(node, ast.keyword) else node.lineno


def words(name):
    for allowed in ALLOWED_IN_NAMES:
        name = name.replace(allowed, "")
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def docstrings(tree):
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and (docstring := ast.get_docstring(node, clean=False)):
            yield docstring, node.body[0].lineno


def messages(tree):
    """Yield the strings of more than one word: error messages, help texts, and docstrings once more."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value, node.lineno


def comments(path):
    with path.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.COMMENT:
                yield token.string, token.start[0]


def prose(path):
    """Yield each text of a file with the line where it starts."""
    if path.suffix != ".py":
        yield path.read_text(), 1
        return
    tree = ast.parse(path.read_text())
    yield from comments(path)
    yield from docstrings(tree) if "tests" in path.parts else messages(tree)  # tests contain programs and data


def violations(path):
    """Yield a line for each banned word in a file."""
    for text, start in prose(path):
        allowed = ALLOWED_IN_PROSE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
        for match in BANNED_IN_PROSE.finditer(allowed):
            yield f"{path.relative_to(ROOT)}:{start + text[: match.start()].count(chr(10))} {match[0]!r}"
    if path.suffix == ".py":
        for name, line in bound_names(ast.parse(path.read_text())):
            if words(name) & BANNED_IN_NAMES:
                yield f"{path.relative_to(ROOT)}:{line} name {name!r}"


@pytest.mark.parametrize("name", AREAS)
def test_banned_words_are_not_used(name):
    assert [line for path in AREAS[name] for line in violations(path)] == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("found = 1", 1),
        ("def f(wanted): ...", 1),
        ("def test_key_is_not_found(): ...", 0),
        ("class SomebodyElse: ...", 1),
        ("from hypothesis import given", 0),
        ("x = 1  # nobody waits", 1),
        ('"""Jobs that nobody\n\nwanted."""', 2),
        ('x = "unused, as `nobody` says"', 0),
        ('raise Error(f"{x} was made in vain")', 2),
    ],
)
def test_each_kind_of_text_is_checked(tmp_path, monkeypatch, source, count):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "module.py"
    path.write_text(source)
    assert len(list(violations(path))) == count


def test_median_test_name_is_short():
    names = [
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert statistics.median(map(len, names)) < MAX_MEDIAN_NAME_CHARS
