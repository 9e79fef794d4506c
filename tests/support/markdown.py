"""Read tables and code blocks from the README and the documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def read(name: str) -> str:
    """Return the text of a document, by its path in the repository."""
    return (ROOT / name).read_text()


def table(text: str, *header: str) -> list[list[str]]:
    """Return the rows of the only table with these column names, each cell without its backquotes."""
    lines = text.splitlines()
    (start,) = [number for number, line in enumerate(lines) if cells(line) == list(header)]
    rows = []
    for line in lines[start + 2 :]:
        if (row := cells(line)) is None:
            break
        rows.append(row)
    assert rows
    return rows


def cells(line: str) -> list[str] | None:
    """Return the cells of a table row, or None for any other line."""
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None


def column(rows: list[list[str]], number: int = 0) -> list[str]:
    """Return one column of a table."""
    return [row[number] for row in rows]


def code_blocks(text: str, language: str) -> list[str]:
    """Return the contents of the fenced code blocks in a language; "" selects blocks without one."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for name, content in blocks if name == language]
