r"""Load programs from text files that hold many of them.

A line `#### name` starts a program that exits with 0, and `#### name exit 3` one that exits with 3; the lines up to
the next such line are its code. A line `#### input` after the code starts its standard input, without which the input
is empty. Blank lines at the end of a section do not count. Code or input with other line ends, no final newline or
rare characters stands in the line itself, as a string literal of Python: `#### input "3 4\r\n5"`. What precedes the
first program is a comment.
"""

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

_HEADER: Final = re.compile(r"^#### (\w+)(?: exit (\d+))?(?: (.+))?\n", re.MULTILINE)
_INPUT: Final = "input"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program, its standard input, and the code with which it exits: 128 and the signal, if one ends it."""

    name: str
    code: str
    stdin: str = ""
    exit_code: int = 0


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
    for name, exit_code, literal, section in zip(*(parts[column::4] for column in range(4)), strict=True):
        if literal and section.strip():
            raise ValueError(f"{name} has a literal and lines")
        content = str(ast.literal_eval(literal)) if literal else section.rstrip("\n") + "\n"
        if name != _INPUT:
            programs.append(Program(name=name, code=content, exit_code=int(exit_code or 0)))
        elif programs and not programs[-1].stdin:
            programs[-1] = replace(programs[-1], stdin=content)
        else:
            raise ValueError("an input does not follow the code of a program")
    return programs
