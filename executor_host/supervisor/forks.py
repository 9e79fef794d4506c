"""Fork PID 1 in fewer steps than os.fork(), which prepares each process for Python."""

import ctypes


class Forks:
    """The forks that become programs."""

    def __init__(self) -> None:
        """Look up the functions now, because each lookup would write to pages that the processes share."""
        libc, python = ctypes.PyDLL(None), ctypes.pythonapi
        self._fork, self._exit = libc.fork, libc["_exit"]
        self._setsid, self._setpgid = libc.setsid, libc.setpgid
        self._before, self._after_in_parent = python.PyOS_BeforeFork, python.PyOS_AfterFork_Parent
        self._after_in_child = python.PyOS_AfterFork_Child

    def fork_program(self) -> int:
        """Fork a process that leads a process group but no session, as if a shell had started it. Return 0 in it.

        In PID 1, return the process ID of the leader of its session, which exits at once. The session is not PID 1's,
        because /proc/self/autogroup sets the priority of a whole session.
        """
        self._before()
        session_leader: int = self._fork()
        if session_leader != 0:
            self._after_in_parent()
            return session_leader
        self._setsid()
        if self._fork() != 0:
            self._exit(0)
        self._setpgid(0, 0)
        self._after_in_child()
        return 0
