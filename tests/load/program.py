"""Define the program that every benchmark runs."""

CODE, STDIN, STDOUT = "print(input()[::-1])", "hello", "olleh\n"


def check_stdout(stdout):
    """Fail unless `stdout` is what the program prints."""
    assert stdout == STDOUT, stdout
