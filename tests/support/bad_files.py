"""List members `files` and `artifacts` of requests that are refused, with the field and the code of each problem."""

from typing import Any, Final


def _file(path: object = "a", **members: Any) -> dict[str, Any]:
    return {"path": path, **(members or {"content": ""})}


def _files(*paths: object) -> dict[str, Any]:
    return {"code": "1", "files": [_file(path) for path in paths]}


def _one(file: object) -> dict[str, Any]:
    return {"code": "1", "files": [_file("first"), file]}


def _patterns(*patterns: object) -> dict[str, Any]:
    return {"code": "1", "artifacts": list(patterns)}


NOT_RELATIVE: Final = (  # each is invalid as the path of a file and as a pattern
    "/", "/etc/passwd", "//a", "a/", "a//b", ".", "..", "./a", "a/.", "a/./b", "../a", "a/..", "a/../b", "a\n/..",
    "/..", "a/b/../../../c",
)  # fmt: skip
NOT_BASE64: Final = ("?", "YQ", "YQ=", "YQ==\n", " YQ==", "Y-_=", "YQ==YQ==", "=", "====", "\u00fc\u00fc")
BAD_FILES: Final[dict[str, tuple[dict[str, Any], str, str]]] = {  # body: field, code
    "files_object": ({"code": "1", "files": {"a": ""}}, "files", "wrong_type"),
    "files_text": ({"code": "1", "files": "a"}, "files", "wrong_type"),
    "files_too_many": (_files(*map(str, range(65))), "files", "too_many"),
    "file_text": (_one("a"), "files[1]", "wrong_type"),
    "file_null": (_one(None), "files[1]", "wrong_type"),
    "file_unknown_member": (_one(_file(content="", mode=0o755)), "files[1].mode", "unknown_field"),
    "file_without_path": (_one({"content": ""}), "files[1].path", "missing"),
    "file_null_path": (_one(_file(None)), "files[1].path", "missing"),
    "file_number_path": (_one(_file(5)), "files[1].path", "wrong_type"),
    "file_empty_path": (_one(_file("")), "files[1].path", "empty"),
    "file_path_nul": (_one(_file("a\0b")), "files[1].path", "contains_nul"),
    "file_path_surrogate": (_one(_file("\ud800")), "files[1].path", "lone_surrogate"),
    **{
        f"file_path_{number}": (_files(path), "files[0].path", "invalid_path")
        for number, path in enumerate(NOT_RELATIVE)
    },
    "file_main": (_one(_file("main.py")), "files[1].path", "reserved_path"),
    "file_in_main": (_one(_file("main.py/a")), "files[1].path", "reserved_path"),
    "file_twice": (_files("a", "b", "a"), "files[2].path", "duplicate_path"),
    "file_in_a_file": (_files("a", "a/b"), "files[1].path", "conflicting_path"),
    "file_deep_in_a_file": (_files("a/b", "a/b/c/d/e"), "files[1].path", "conflicting_path"),
    "file_is_a_directory": (_files("a/b/c", "x", "a/b"), "files[2].path", "conflicting_path"),
    "file_without_content": (_one({"path": "a"}), "files[1].content", "missing"),
    "file_null_content": (_one(_file(content=None, content_base64=None)), "files[1].content", "missing"),
    "file_with_two_contents": (_one(_file(content="", content_base64="")), "files[1]", "mutually_exclusive"),
    "file_number_content": (_one(_file(content=5)), "files[1].content", "wrong_type"),
    "file_bytes_content": (_one(_file(content_base64=[1])), "files[1].content_base64", "wrong_type"),
    "file_content_surrogate": (_one(_file(content="\udfff")), "files[1].content", "lone_surrogate"),
    "file_base64_nul": (_one(_file(content_base64="YQ==\0")), "files[1].content_base64", "contains_nul"),
    **{
        f"file_base64_{number}": (_one(_file(content_base64=text)), "files[1].content_base64", "invalid_base64")
        for number, text in enumerate(NOT_BASE64)
    },
    "artifacts_text": ({"code": "1", "artifacts": "*.png"}, "artifacts", "wrong_type"),
    "artifacts_false": ({"code": "1", "artifacts": False}, "artifacts", "wrong_type"),
    "artifacts_too_many": (_patterns(*["a"] * 17), "artifacts", "too_many"),
    "pattern_number": (_patterns("a", 5), "artifacts[1]", "wrong_type"),
    "pattern_null": (_patterns(None), "artifacts[0]", "wrong_type"),
    "pattern_empty": (_patterns("a", ""), "artifacts[1]", "empty"),
    "pattern_nul": (_patterns("*\0"), "artifacts[0]", "contains_nul"),
    "pattern_surrogate": (_patterns("\ud800"), "artifacts[0]", "lone_surrogate"),
    **{
        f"pattern_{number}": (_patterns(path), "artifacts[0]", "invalid_path")
        for number, path in enumerate(NOT_RELATIVE)
    },
    "pattern_outside": (_patterns("**/../*"), "artifacts[0]", "invalid_path"),
}  # fmt: skip
