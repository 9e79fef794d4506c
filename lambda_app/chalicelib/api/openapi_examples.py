"""Derives examples from the schemas of the OpenAPI document, with a typical value for some members."""

from typing import Any, Final

JOB_ID: Final = "0123456789abcdef0123456789abcdef"
TYPICAL_VALUES: Final[dict[str, Any]] = {
    "id": JOB_ID,
    "exit_code": 0,
    "stdout": "olleh\n",
    "output_bytes": {"stdout": 6, "stderr": 0},
    "usage": {"duration_ms": 12, "cpu_ms": 3, "memory_bytes": 12_804_096, "queued_ms": 11},
    "status": "ok",
    "runtime": "python",
    "python_version": "3.13",
    "truncated": {"stdout": False, "stderr": False},
    "key_id": "abcdefgh",
    "plan": "pro",
    "resets_at": "2027-01-01T00:00:00Z",
    "title": "Not found",
}
_EMPTY: Final = {"array": [], "boolean": False, "integer": 0, "number": 0, "object": {}, "string": "", "null": None}


def example(schema: dict[str, Any], components: dict[str, Any], *, name: str = "") -> Any:  # noqa: ANN401 - any JSON
    """Return a value that a schema of the document accepts, for the member `name` of an object."""
    if "$ref" in schema:
        return example(components[schema["$ref"].rpartition("/")[2]], components, name=name)
    typical = TYPICAL_VALUES.get(name)
    if values := schema.get("examples") or schema.get("enum"):
        return typical if typical in values else values[0]
    if typical is not None:
        return typical
    if "anyOf" in schema:
        is_nullable = {"type": "null"} in schema["anyOf"]
        return None if is_nullable else example(schema["anyOf"][0], components, name=name)
    if "properties" in schema:
        required = set(schema.get("required", ()))
        return {
            member: example(member_schema, components, name=member)
            for member, member_schema in schema["properties"].items()
            if member in required or "examples" in member_schema
        }
    shortest_array = [example(schema["items"], components)] if schema.get("minItems") else []
    return schema.get("minimum", {**_EMPTY, "array": shortest_array}[schema.get("type", "object")])
