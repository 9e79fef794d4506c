"""Compare the patterns of artifacts with Python's glob, and bound the time that they take."""

import glob
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chalicelib.contract import MAX_ARTIFACT_PATTERNS, MAX_PATH_BYTES, PATH_PATTERN
from executor_host.supervisor.patterns import Patterns

NAMES = ("a", "b", "ab", "ba", "aab", ".a", "a.b", "-", "[", "a]b", "!", "a\nb", "\u00fc")
FILES = (*NAMES, *(f"d/{name}" for name in NAMES), ".h/a", "d/.h/a", "d/e/a", "d/e/ab", "d/e/f/g/a", "a-c/b", "A")
PIECES = ("a", "b", "d", "e", "-", ".", "!", "?", "*", "**", "[", "]", "[ab]", "[!a]", "[a-e]", "[!]a]", "/", "/**/")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for path in FILES:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def matches(patterns, path):
    compiled = Patterns(patterns)
    states = compiled.start()
    *directories, name = path.split("/")
    for directory in directories:
        states = compiled.enter(compiled.after(states, directory))
    return compiled.match(compiled.after(states, name))


def matching_files(pattern):
    return {path for path in FILES if matches([pattern], path)}


@example("**/**/**")
@example("d/**/a")
@example("d/**/**/*")
@example("**/.h/*")
@example(".*")
@example("*.b")
@example("*/*/?")
@example("a**b")
@example("[!a]*")
@example("[]-a]")
@example("[a-]")
@example("[")
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join))
def test_pattern_matches_what_glob_matches(tree, pattern):
    if re.search(PATH_PATTERN, pattern):
        names = glob.glob(pattern, root_dir=tree, recursive=True)  # noqa: PTH207 - pathlib's rules are different
        assert matching_files(pattern) == {name for name in names if (tree / name).is_file()}


def test_any_of_several_patterns_matches():
    assert [path for path in FILES if matches(["b", "d/e/*", "x"], path)] == ["b", "d/e/a", "d/e/ab"]
    assert not any(matches([], path) for path in FILES)


@pytest.mark.parametrize(("pattern", "everything"), [("**", True), ("d/**", True), ("d/*", False), ("*", False)])
def test_directory_of_which_everything_matches_is_recognized(pattern, everything):
    compiled = Patterns([pattern])
    assert compiled.match_everything_below(compiled.after(compiled.start(), "d")) is everything


def test_directory_in_which_nothing_can_match_has_no_states():
    compiled = Patterns(["out/*.png", "data/**"])
    assert compiled.enter(compiled.after(compiled.start(), "other")) == 0
    assert compiled.enter(compiled.after(compiled.start(), "out")) != 0


SLOW_WITH_BACKTRACKING = {
    "stars": "*a" * 126 + "*b",
    "directories": "**/*a/" * 42 + "b",
    "globstars": "**/" * 84 + "b",
    "sets": "*[!b]" * 50 + "c",
    "questions": "*?" * 127,
}


@pytest.mark.parametrize("pattern", SLOW_WITH_BACKTRACKING.values(), ids=SLOW_WITH_BACKTRACKING)
def test_matching_takes_linear_time(pattern):
    assert len(pattern) <= MAX_PATH_BYTES
    compiled = Patterns([pattern] * MAX_ARTIFACT_PATTERNS)
    started_at = time.monotonic()
    for _ in range(100):
        states = compiled.start()
        for _ in range(10):
            states = compiled.enter(compiled.after(states, "a" * 24))
        compiled.after(states, "a" * MAX_PATH_BYTES)
    assert time.monotonic() - started_at < 5
