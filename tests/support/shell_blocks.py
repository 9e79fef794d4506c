"""List the shell blocks of the README and docs, and say which of them a test can run."""

from tests.support.markdown import DOCUMENTS, ROOT, code_blocks

# Blocks that need an AWS account, another host or the network begin like this. Unit tests check the names they use.
NEEDS_AWS = (
    "make refresh-base",
    "make sbom",
    "make deploy",
    "make set",
    "make rollback",
    "make promote",
    "make destroy",
    "aws ",
    "curl -s https://…",
    "docker run --network host",
    ".venv/bin/python-exec preflight",
    ".venv/bin/python-exec create-resources",
    "DOCKER_GID=",
    "gh attestation ",
)
# Blocks that run until Ctrl-C or install everything begin like this. tests/e2e/test_local_stack.py covers `make run`.
LONG_RUNNING = ("make run", "make setup")
RUNBOOK = ROOT / "docs/operations/runbook.md"  # tests/integration/test_runbook.py runs its blocks


def shell_blocks(prefixes: tuple[str, ...] | None = None) -> dict[str, str]:
    """Return the blocks that begin with one of the prefixes, or without prefixes those that a test can run."""
    blocks = {}
    for path in DOCUMENTS:
        for number, block in enumerate(code_blocks(path.read_text(), "sh"), start=1):
            listed = block.startswith(prefixes or (*NEEDS_AWS, *LONG_RUNNING))
            if listed == (prefixes is not None) and (listed or path != RUNBOOK):
                blocks[f"{path.relative_to(ROOT)}-{number}"] = block
    return blocks
