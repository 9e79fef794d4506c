"""Assertions about the problems that the API raises."""

import contextlib
from collections.abc import Iterator

import pytest

from chalicelib.problems import ProblemError, ProblemType


@contextlib.contextmanager
def raises_problem(problem_type: ProblemType) -> Iterator[pytest.ExceptionInfo[ProblemError]]:
    """Fail unless the block raises a ProblemError of this type."""
    with pytest.raises(ProblemError) as raised:
        yield raised
    assert raised.value.problem.type == problem_type.uri
