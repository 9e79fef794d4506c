"""Makes JSON Schemas of our types readable for other languages. For openapi.py and mcp_tools.py, which publish them."""

import inspect
from typing import Any, Final

_PATTERN_PARTS: Final = {r"\A": "^", r"\Z": "$", "(?s:.*/)": r"(?:[\s\S]*/)", r"[^\0]": r"[^\u0000]"}


def portable(value: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Return a schema with patterns that ECMAScript understands, and descriptions without the indentation of Python."""
    if isinstance(value, dict):
        return {
            name: portable(inspect.cleandoc(member) if name == "description" and isinstance(member, str) else member)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [portable(member) for member in value]
    if isinstance(value, str):
        for of_python, of_ecmascript in _PATTERN_PARTS.items():
            value = value.replace(of_python, of_ecmascript)
    return value
