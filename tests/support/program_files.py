r"""Load programs from text files that hold many of them.

A line `#### name` starts a program; the lines up to the next such line are its code. A line `#### input` after the
code starts its standard input, without which the input is empty. Blank lines at the end of a section do not count.
Code or input with other line ends, no final newline or rare characters stands in the line itself, as a string
literal of Python: `#### input "3 4\r\n5"`. What precedes the first program is a comment.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = re.compile(r"^#### (\w+)(?: (.+))?\n", re.MULTILINE)
_INPUT: Final = "input"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program and its standard input."""

    name: str
    code: str
    stdin: str = ""


def load_programs(directory: Path) -> dict[str, Program]:
    """Return the programs of every file in a directory by `file/name`. Raises ValueError if a name is not unique."""
    programs: dict[str, Program] = {}
    for path in sorted(directory.glob("*.txt")):
        for program in parse_programs(path.read_text()):
            name = f"{path.stem}/{program.name}"
            if name in programs:
                raise ValueError(f"there are two programs {name}")
            programs[name] = program
    return programs


def parse_programs(text: str) -> list[Program]:
    """Return the programs of one file, in order. Raises ValueError for an input without a program."""
    programs: list[Program] = []
    _, *parts = _HEADER.split(text)
    for name, literal, section in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        content = str(ast.literal_eval(literal)) if literal else section.rstrip("\n") + "\n"
        if literal and section.strip():
            raise ValueError(f"{name} has a literal and lines")
        if name != _INPUT:
            programs.append(Program(name=name, code=content))
        elif programs and not programs[-1].stdin:
            programs[-1] = Program(name=programs[-1].name, code=programs[-1].code, stdin=content)
        else:
            raise ValueError("an input does not follow the code of a program")
    return programs
