"""Who may import whom, and how long a module may be."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
API, AGENT, INFRA, TESTS = (ROOT / name for name in ("lambda_app", "executor_host", "infra", "tests"))
SOURCES = sorted(path for folder in (API, AGENT, INFRA) for path in folder.rglob("*.py"))
OURS = ("app", "chalicelib", "executor_host", "infra", "tests")
MAX_LINES = 300
# Everything inside runs in the container, beside nothing of ours, so it is one file.
ONE_FILE = {AGENT / "supervisor.py": 450}

CONTRACT = API / "chalicelib/contract.py"
SUPERVISOR = AGENT / "supervisor.py"
STANDARD_LIBRARY_ONLY = (SUPERVISOR, INFRA / "images/sandbox/assemble.py")


def imports(path):
    """Full names of what a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def within(names, packages):
    return {name for name in names if name.split(".")[0] in packages}


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


@each(SOURCES)
def test_module_length_is_limited(path):
    assert len(path.read_text().splitlines()) <= ONE_FILE.get(path, MAX_LINES)


def test_contract_has_no_first_party_imports():
    assert within(imports(CONTRACT), OURS) == set()


@each(sorted(AGENT.rglob("*.py")))
def test_agent_imports_only_contract_from_other_packages(path):
    foreign = within(imports(path), set(OURS) - {"executor_host"})
    assert {name for name in foreign if not name.startswith("chalicelib.contract.")} == set()


@each(sorted(API.rglob("*.py")))
def test_api_does_not_import_docker_or_agent(path):
    assert within(imports(path), {"docker", "executor_host", "infra", "tests"}) == set()


@each(sorted((API / "chalicelib").glob("*.py")))
def test_chalicelib_does_not_import_app(path):
    assert within(imports(path), {"app"}) == set()


@each(STANDARD_LIBRARY_ONLY)
def test_container_code_imports_only_standard_library(path):
    assert {name.split(".")[0] for name in imports(path)} <= sys.stdlib_module_names


def test_deployed_code_does_not_import_infra_or_tests():
    assert {
        path for path in SOURCES if INFRA not in path.parents and within(imports(path), {"infra", "tests"})
    } == set()


def test_unittest_mock_is_not_used():
    assert {
        path for path in TESTS.rglob("*.py") if any(name.startswith("unittest.mock") for name in imports(path))
    } == set()
