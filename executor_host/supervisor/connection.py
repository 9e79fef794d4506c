"""Exchange bytes with the agent, which is at the other end of PID 1's stdin and stdout."""

import os

from .run_memory import allocate

READ_BYTES = 64 * 1024  # what a pipe holds

read_memory = allocate(READ_BYTES)  # what was read last, from the agent or from the program


def send(*parts: bytes | memoryview) -> None:
    """Write all of `parts` to the agent."""
    views = [memoryview(part) for part in parts if part]
    while views:
        size = os.writev(1, views)
        while views and size >= len(views[0]):
            size -= len(views.pop(0))
        if size:
            views[0] = views[0][size:]


def receive(size: int) -> bytes:
    """Return the next bytes from the agent, which the programs of later runs may see. Exit if it disconnects."""
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def receive_into(fd: int, size: int) -> None:
    """Write the next bytes from the agent to a file or pipe. Exit if the agent disconnects."""
    while size:
        chunk_bytes = os.readv(0, [read_memory[:size]])
        if not chunk_bytes:
            os._exit(0)
        size -= chunk_bytes
        chunk = read_memory[:chunk_bytes]
        while chunk:
            chunk = chunk[os.write(fd, chunk) :]
