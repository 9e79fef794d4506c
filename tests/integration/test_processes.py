"""The log of a child process is bounded and keeps its end."""

import sys

from infra.local import processes
from tests.support.polling import eventually

MAX_BYTES = 100_000
FLOOD = "import sys, time\nfor n in range(20_000): print('x' * 90, n); n % 500 or time.sleep(0.05)\ntime.sleep(60)"


def test_size_of_log_is_limited(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", MAX_BYTES)
    monkeypatch.setattr(processes, "LOG_CHECK_INTERVAL_S", 0.02)
    largest = 0

    def is_written():
        nonlocal largest
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
        return any(path.read_text().endswith("x 19999\n") for path in tmp_path.iterdir())

    with processes.child_process("flood", [sys.executable, "-uc", FLOOD], grace_s=1, logs=tmp_path):
        eventually(is_written, timeout_s=30)
        eventually(lambda: (tmp_path / "flood.log").stat().st_size <= MAX_BYTES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flood.log", "flood.log.1"]
    assert largest < 5 * MAX_BYTES  # 2 MB were written
