"""Shows the value of a program's last expression, as a notebook does. For the tool of mcp_tools.py; `POST /` does not.

The change keeps every line number. A traceback that quotes a changed line is changed back.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

MAX_PARSED_BYTES: Final = 64 * 1024  # parsing takes about 1 s per MiB and hundreds of bytes of memory per byte
DISPLAY: Final = '__import__("sys").displayhook(('  # a second pair of parentheses, since the expression may be a tuple
END: Final = "))"

_MARKERS: Final = re.compile(r" *[~^][~^ ]*")
_INDENTATION: Final = "    "  # of a line that a traceback quotes


# ast.parse warns about "1if x" and "\\d" on stderr, which is a log on Lambda, and quotes the program.
warnings.filterwarnings("ignore", category=SyntaxWarning)


class DisplayedProgram(Struct, frozen=True):
    """A program that prints its last expression; `changes` are the changed and the original text of lines."""

    code: str
    changes: tuple[tuple[str, str], ...] = ()

    def restore_traceback(self, stderr: str) -> str:
        """Return stderr with the original text of quoted lines, and with its markers below them."""
        return "\n".join(self._restored_lines(stderr))

    def _restored_lines(self, stderr: str) -> Iterator[str]:
        originals = dict(self.changes)
        quoted = None
        for line in stderr.split("\n"):
            if quoted is not None and _MARKERS.fullmatch(line):
                yield from _shift_markers(line, quoted)
                quoted = None
                continue
            quoted = originals.get(line.strip()) if line.startswith(_INDENTATION) else None
            yield line if quoted is None else _INDENTATION + quoted


def display_last_expression(code: str) -> DisplayedProgram:
    """Return the program with its last statement displayed if that is an expression; otherwise as it is."""
    if len(code.encode()) > MAX_PARSED_BYTES:
        return DisplayedProgram(code)
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the sandbox reports what is wrong with it
        return DisplayedProgram(code)
    if not body or not isinstance(body[-1], ast.Expr):
        return DisplayedProgram(code)
    return _display(code, body[-1])


def _display(code: str, statement: ast.Expr) -> DisplayedProgram:
    lines = code.encode().splitlines(keepends=True)
    first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
    rest = lines[last][statement.end_col_offset :]
    if rest.lstrip().startswith(b";"):  # hides the value, as in a notebook
        return DisplayedProgram(code)
    originals = {number: lines[number] for number in (first, last)}
    lines[last] = lines[last][: statement.end_col_offset] + END.encode() + rest
    lines[first] = lines[first][: statement.col_offset] + DISPLAY.encode() + lines[first][statement.col_offset :]
    changes = tuple((lines[n].decode().strip(), original.decode().strip()) for n, original in originals.items())
    return DisplayedProgram(b"".join(lines).decode(), changes)


def _shift_markers(markers: str, quoted: str) -> Iterator[str]:
    """Yield the markers of the original line, which begins further left. Python omits those of a whole line."""
    shifted = markers[len(_INDENTATION) + len(DISPLAY) :][: len(quoted)].rstrip()
    if shifted != "^" * len(quoted):
        yield _INDENTATION + shifted
