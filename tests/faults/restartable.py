"""Kill processes and containers of the stack, and start them again, as Docker on a host and Lambda do in production."""

import contextlib

from tests.support.polling import eventually

START_TIMEOUT_S = 30
END_TIMEOUT_S = 30


class RunningContainer:
    """A container, with what faults and their clean-up need of a process."""

    def __init__(self, container):
        self._container = container

    def end(self, number):
        """Send a signal and wait until the container has stopped."""
        self._container.kill(number)
        self._container.wait(timeout=END_TIMEOUT_S)

    def wait_until(self, is_ready, *, timeout_s):
        """Wait until `is_ready()`."""
        eventually(is_ready, timeout_s=timeout_s)


class RunningProcess:
    """A process of this machine, with the same methods."""

    def __init__(self, process):
        self._popen, self.wait_until = process.popen, process.wait_until

    def end(self, number):
        """Send a signal and wait until the process has ended."""
        self._popen.send_signal(number)
        self._popen.wait(END_TIMEOUT_S)


class RestartableProcess:
    """A process or container that can be killed and started again under the same name."""

    def __init__(self, start):
        self._start = start
        self._running = contextlib.ExitStack()
        self.restart()

    def restart(self):
        """Start the process again, after ending it if it still runs."""
        self._running.close()
        self.process, self.ready = self._start(self._running)

    def terminate(self, number):
        """Send a signal and wait until the process has ended."""
        self.process.end(number)

    def wait_until_ready(self):
        """Wait until the process does its work."""
        self.process.wait_until(self.ready, timeout_s=START_TIMEOUT_S)

    def close(self):
        """End the process."""
        self._running.close()
