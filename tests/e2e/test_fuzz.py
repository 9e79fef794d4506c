"""Requests and responses that are derived from the OpenAPI document; `make fuzz` sends thousands."""

from tests.fuzz.fuzz import cases, fuzz


def test_responses_to_generated_requests_are_as_documented(stack, tmp_path):
    passed, output = fuzz(stack.url, stack.api_key, examples=5, phases="examples,coverage,fuzzing", cwd=tmp_path)
    assert passed, output
    assert cases(output) > 300
