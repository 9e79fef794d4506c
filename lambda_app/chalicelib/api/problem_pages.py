"""Renders a page for each type of problem: its cause and its remedy."""

from typing import Final

import msgspec
from chalice.app import Request, Response

from chalicelib import problems
from chalicelib.api import static_files
from chalicelib.api.responses import base_path
from chalicelib.problems import PROBLEM_TYPES, Problem, ProblemError

_BY_SLUG: Final = {problem_type.slug: problem_type for problem_type in PROBLEM_TYPES}


def page_response(slug: str, request: Request) -> Response:
    """Return the page about a type of problem. Raise ProblemError if there is no such type."""
    problem_type = _BY_SLUG.get(slug)
    if problem_type is None:
        raise ProblemError(problems.NOT_FOUND)
    values = {**msgspec.structs.asdict(problem_type), "uri": problem_type.uri}
    return static_files.page_response("problem.html", request, values=values)


def help_link(problem: Problem, request: Request) -> str:
    """Return the Link header that leads from a problem to the page about its type."""
    return f'<{base_path(request)}/problems/{problem.type.removeprefix(problems.TYPE_PREFIX)}>; rel="help"'
