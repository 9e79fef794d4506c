"""Run programs as `python3 main.py < input` in one container of the sandbox image, without the supervisor."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from chalicelib.runtimes import RUNTIMES, Runtime
from executor_host.outcome import Outcome, signal_name
from tests.support.driver_container import Driver, driver_container

NO_FILES: Final[Mapping[str, str]] = MappingProxyType({})

_DRIVER: Final = Path(__file__).with_name("plain_python_driver.py")
_ADDRESS: Final = re.compile(r"\b0x[0-9a-f]{9,}\b")


class Ending(NamedTuple):
    """How a program ended and what it wrote, in a sandbox or not, without the addresses of objects."""

    exit_code: int | None
    signal: str | None
    stdout: str
    stderr: str


def ending_of(outcome: Outcome) -> Ending:
    """Return the part of a sandbox's outcome that plain Python has too."""
    return Ending(outcome.exit_code, outcome.signal, *map(_without_addresses, (outcome.stdout, outcome.stderr)))


def _without_addresses(text: str) -> str:
    return _ADDRESS.sub("0x...", text)


class PlainPython:
    """Run one program after another in the container of a driver, each with an empty scratch directory."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def run(self, code: str, stdin: str = "", *, files: Mapping[str, str] = NO_FILES) -> Ending:
        """Return how a program ends whose working directory has `files`: their texts by path."""
        self._driver.send([code, stdin, dict(files)])
        exit_code, *streams = json.loads(self._driver.receive())
        texts = (_without_addresses(base64.b64decode(stream).decode(errors="replace")) for stream in streams)
        if exit_code < 0:
            return Ending(128 - exit_code, signal_name(-exit_code), *texts)
        return Ending(exit_code, None, *texts)


@contextmanager
def plain_python_container(image: str, *, agent: str, runtime: Runtime = RUNTIMES["python"]) -> Iterator[PlainPython]:
    """Start the container, which has the limits and the environment of a sandbox, and remove it at the end."""
    with driver_container(image, _DRIVER.read_text(), agent=agent, runtime=runtime) as driver:
        yield PlainPython(driver)
