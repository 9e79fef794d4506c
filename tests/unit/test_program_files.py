"""The text files of programs are parsed as their loader documents."""

import pytest

from tests.support.program_files import Program, load_programs, parse_programs

FILE = """
About these programs.

#### first
print(1)


#### second
print(input())
# two lines

#### input
line 1
line 2

#### third exit 1 'print(2)\\r\\n'
#### input "no newline\\0"
"""


def test_sections_become_programs():
    assert parse_programs(FILE) == [
        Program(name="first", code="print(1)\n"),
        Program(name="second", code="print(input())\n# two lines\n", stdin="line 1\nline 2\n"),
        Program(name="third", code="print(2)\r\n", stdin="no newline\0", exit_code=1),
    ]


@pytest.mark.parametrize("text", ["#### input\nx\n", "#### a\n#### input '1'\n#### input '2'\n", "#### a '1'\n2\n"])
def test_misplaced_section_is_rejected(text):
    with pytest.raises(ValueError, match=r"input|lines"):
        parse_programs(text)


def test_name_includes_its_file(tmp_path):
    (tmp_path / "topic.txt").write_text("#### a\n1\n")
    assert load_programs(tmp_path) == {"topic/a": Program(name="a", code="1\n")}


def test_two_programs_of_one_name_are_rejected(tmp_path):
    (tmp_path / "topic.txt").write_text("#### a\n1\n#### a\n2\n")
    with pytest.raises(ValueError, match="topic/a"):
        load_programs(tmp_path)
