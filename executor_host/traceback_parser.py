r"""Read the exception that ended a program from what Python wrote to its standard error. See parse_uncaught_exception.

Python prints an uncaught exception last, after its causes and contexts:

    Traceback (most recent call last):
      File "/tmp/main.py", line 7, in <module>
        main()
        ~~~~^^
      File "/tmp/main.py", line 3, in main
        raise ValueError("no")
    ValueError: no

The lines of an exception group have a margin, `  | `. A syntax error of main.py itself has no header, only its place in
the file. stderr is hostile, so every pattern matches in linear time.
"""

import re
from posixpath import normpath
from typing import Final

from chalicelib.contract import MAX_ERROR_MESSAGE_CHARS, UncaughtException

_MAIN: Final = "/tmp/main.py"  # noqa: S108 - in the sandbox
_SYNTAX_ERRORS: Final = ("SyntaxError", "IndentationError", "TabError")
_HEADER: Final = r"Traceback \(most recent call last\):"
_MARGIN: Final = r"(?(group)  \| )"  # of an exception group
_TYPE: Final = r"[^\s:()~^]++(?=: |$)"  # without what is in most source lines, in case stderr was cut in one
_BLOCK: Final = re.compile(
    # The header may follow text without a newline. The frames of `python3 -m main` precede the first one of main.py.
    r"(?:(?P<ignored>^Exception ignored .*\n)?"
    rf'(?P<header>(?P<group>  \+ Exception Group )?{_HEADER}\n)(?:{_MARGIN}  File "<frozen .*\n){{0,8}}|^)'
    rf'{_MARGIN}  File "(?P<path>.*)", line [0-9]+(?(header)(?:, in (?P<function>.*))?)$\n?'
    # Other frames and source lines end at the line that starts with a type, or at the next header.
    rf"(?:(?!{_MARGIN}{_TYPE}).*+(?<!{_HEADER})\n)*+"
    rf"(?:{_MARGIN}(?P<type>{_TYPE}).*)?",
    re.MULTILINE,
)
_FRAME: Final = re.compile(r'^(?:  \| )?  File "(.*)", line ([0-9]{1,9})(?:, in .*)?$', re.MULTILINE)
# Python prints these without a frame: a group that `except*` merges from what its handlers raise and, as all of stderr,
# the errors of the compiler about code that is nested too deeply or in an unknown encoding.
_FRAMELESS: Final = re.compile(
    r"(?:(?:\A|^(?!  [|+]).*\n)(?P<group>  \| )(?=.*\n(?:  \| .*\n)*+  \+-\+-)"
    r"|\A(?=(?:RecursionError|MemoryError|SyntaxError: encoding problem)(?:: .*)?\n?\Z))"
    rf"(?P<type>{_TYPE})",
    re.MULTILINE,
)
_SUB_EXCEPTIONS: Final = re.compile(r"^  \+-\+-", re.MULTILINE)
# What else Python prints before the process ends.
_AFTERMATH: Final = re.compile(
    r"^(?:Exception ignored |Exception in thread |Fatal Python error: "
    r"|Process .*:\n(?:  \+ Exception Group )?Traceback \("
    r"|(?:Task|Future) exception was never retrieved$|Task was destroyed but it is pending!$"
    rf'|{_HEADER}\n  File ".*", line [0-9]+, in _exitfunc$'  # weakref.finalize
    r"|\S.*:[0-9]+: \w*Warning: )",
    re.MULTILINE,
)
_COLORED_FRAME: Final = "  File \x1b["  # with FORCE_COLOR or PYTHON_COLORS
_COLOR: Final = re.compile(r"\x1b\[[0-9;]*m")


def parse_uncaught_exception(stderr: str) -> UncaughtException | None:
    """Return the exception that ended a program with exit code 1 or 120, or None if stderr does not show any.

    The traceback of an uncaught exception starts in the code of a module. Those of threads, of tests and of
    `print_exc` in functions start in a function. So the last one that starts in main.py's module is returned, or else
    the last one that starts in another module, which the program may have executed in its place. Notes are part of
    the message. stderr does not show everything:

    - A traceback that main.py prints at module level before `sys.exit(1)` is taken for an uncaught exception.
    - What the program prints after the traceback, for example in an atexit function, is taken for its message.
    - A line of a message that looks like what Python prints before the process ends cuts the message.
    - A message that contains a traceback of main.py's module, from its second line on, is taken for that traceback.
    - None is returned if the type has a space in its name, or if sys.tracebacklimit hides the frame of the module.
    """
    block = _last_block(_COLOR.sub("", stderr) if _COLORED_FRAME in stderr else stderr)
    if block is None:
        return None
    lines = [int(line) for path, line in _FRAME.findall(block.string, *block.span()) if _is_main(path)]
    return UncaughtException(
        type=block["type"][:MAX_ERROR_MESSAGE_CHARS],
        message=_message(block)[:MAX_ERROR_MESSAGE_CHARS],
        line=lines[-1] if lines else None,
    )


def _last_block(text: str) -> re.Match[str] | None:
    blocks = [block for block in _BLOCK.finditer(text) if _is_uncaught(block)]
    own_blocks = [block for block in blocks if _is_main(block["path"])]
    candidates = own_blocks or blocks or list(_FRAMELESS.finditer(text))
    return candidates[-1] if candidates else None


def _is_uncaught(block: re.Match[str]) -> bool:
    """Return whether a block starts in a module, or reports a syntax error instead of such a frame."""
    if block["function"] is None and block["type"] in _SYNTAX_ERRORS:
        return block["header"] is not None or _is_main(block["path"])
    return block["function"] == "<module>" and block["type"] is not None and block["ignored"] is None


def _is_main(path: str) -> bool:
    return path.endswith("main.py") and normpath(path) == _MAIN


def _message(block: re.Match[str]) -> str:
    start = block.end("type")
    end = (_SUB_EXCEPTIONS if block["group"] else _AFTERMATH).search(block.string, start)
    text = block.string[start : end.start() if end else None]
    if block["group"]:  # Python adds the margin with textwrap.indent, which splits lines as str.splitlines does
        text = "".join(line.removeprefix("  | ") for line in text.splitlines(keepends=True))
    return text.removeprefix(": ").removesuffix("\n")
