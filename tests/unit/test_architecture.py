"""Which modules may import which, and how long modules and functions may be."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
API, AGENT, INFRA, TESTS = (ROOT / name for name in ("lambda_app", "executor_host", "infra", "tests"))
SOURCES = sorted(path for folder in (API, AGENT, INFRA) for path in folder.rglob("*.py"))
OURS = ("app", "chalicelib", "executor_host", "infra", "tests")
MAX_LINES = 300
MAX_FUNCTION_LINES = 50
# From the bottom up: a module imports only from lower rows and from its own package.
LAYERS = {
    "chalicelib": (
        {"contract", "runtimes"},
        {"dynamodb", "problems", "settings", "sqs"},
        {"telemetry"},
        {"access"},
        {"jobs"},
        {"webhooks", "fleet"},
        {"components"},
        {"api"},
    ),
    "infra": (
        {"errors", "paths", "progress", "template"},
        {"env_file", "capacity", "resources", "server"},
        {"images", "operator"},
        {"local"},
        {"aws"},
    ),
}

CONTRACT = sorted((API / "chalicelib/contract").glob("*.py"))
SHARED = ("chalicelib.contract.", "chalicelib.runtimes.")
SUPERVISOR = sorted((AGENT / "supervisor").rglob("*.py"))  # has another name in the container
STANDARD_LIBRARY_ONLY = (*SUPERVISOR, AGENT / "isolation_probe.py", INFRA / "images/sandbox/assemble.py")


def imports(path):
    """Return the full names of what a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or (node.level == 1 and path in SUPERVISOR), f"{path} imports relatively"
            module = node.module if node.level == 0 else f"{module_name(path.parent)}.{node.module}"
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def module_name(path):
    parts = path.relative_to(API if API in path.parents else ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imported_modules(path):
    """Return the first-party modules that a module imports, without the names within them."""
    modules = {name if name in MODULES else name.rpartition(".")[0] for name in imports(path)}
    return modules & set(MODULES) - {module_name(path)}


def rank(module):
    """Return the row of a module in the layers of its package."""
    package, _, rest = module.partition(".")
    (row,) = [row for row, names in enumerate(LAYERS[package]) if rest.split(".")[0] in names]
    return row


def within(names, packages):
    return {name for name in names if name.split(".")[0] in packages}


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


@each(SOURCES)
def test_module_length_is_limited(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@each(SOURCES)
def test_function_length_is_limited(path):
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    long = {node.name for node in functions if node.end_lineno - node.lineno >= MAX_FUNCTION_LINES}
    assert long == set()


def test_every_module_has_a_layer():
    layered = [module for module in MODULES if "." in module and module.split(".")[0] in LAYERS]
    assert [rank(module) for module in layered]


def test_imports_point_down():
    upward = {
        (module, imported)
        for module, path in MODULES.items()
        for imported in imported_modules(path)
        if "." in module and "." in imported
        if module.split(".")[0] in LAYERS and module.split(".")[0] == imported.split(".")[0]
        if module.split(".")[1] != imported.split(".")[1] and rank(module) <= rank(imported)
    }
    assert upward == set()


def test_imports_have_no_cycle():
    graph = {module: imported_modules(path) for module, path in MODULES.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_only_app_and_packaging_import_the_api_package():
    importers = {
        module
        for module, path in MODULES.items()
        if any(imported.startswith("chalicelib.api.") for imported in imported_modules(path))
    }
    outside = {module for module in importers if not module.startswith("chalicelib.api.")}
    assert outside == {"app", "infra.aws.package", "infra.images.api_image"}  # which package the static files of wheels


@each([*CONTRACT, API / "chalicelib/runtimes.py"])
def test_shared_module_has_no_first_party_imports(path):
    outside = {name for name in imports(path) if not name.startswith("chalicelib.contract.")}
    assert within(outside, OURS) == set()


@each(sorted(AGENT.rglob("*.py")))
def test_agent_imports_only_shared_modules_from_other_packages(path):
    foreign = within(imports(path), set(OURS) - {"executor_host"})
    assert {name for name in foreign if not name.startswith(SHARED)} == set()


@each(sorted(API.rglob("*.py")))
def test_api_does_not_import_docker_or_agent(path):
    assert within(imports(path), {"docker", "executor_host", "infra", "tests"}) == set()


@each(sorted((API / "chalicelib").rglob("*.py")))
def test_chalicelib_does_not_import_app(path):
    assert within(imports(path), {"app"}) == set()


@each(STANDARD_LIBRARY_ONLY)
def test_container_code_imports_only_standard_library(path):
    outside = {name for name in imports(path) if not name.startswith("executor_host.supervisor.")}
    assert {name.split(".")[0] for name in outside} <= sys.stdlib_module_names


@each(sorted(path for path in AGENT.rglob("*.py") if path not in SUPERVISOR))
def test_agent_imports_only_protocol_of_supervisor(path):
    prefix = "executor_host.supervisor."
    modules = {name.removeprefix(prefix).split(".")[0] for name in imports(path) if name.startswith(prefix)}
    assert modules <= {"protocol"}


def test_deployed_code_does_not_import_infra_or_tests():
    assert {
        path for path in SOURCES if INFRA not in path.parents and within(imports(path), {"infra", "tests"})
    } == set()


def test_unittest_mock_is_not_used():
    assert {
        path for path in TESTS.rglob("*.py") if any(name.startswith("unittest.mock") for name in imports(path))
    } == set()
