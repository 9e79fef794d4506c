"""Run one program in a sandbox as its PID 1, and report how it ended.

The package runs inside the container, with nothing but the standard library. The image installs it as
`sitecustomize`, which Python imports while it starts `python3 main.py`. During that import PID 1 forks. The parent
never returns from the import: it waits for one job and watches the program (parent.py). The child gets ready, waits
for the parent's signal and returns (program.py), so the interpreter goes on to run main.py. Python has already
started by then, no frame of the supervisor is below the program's, and nothing of it runs when the program exits. If a
file of the job has the name of a preloaded module, the child executes Python once more, without preloading anything.

The agent imports only protocol.py.
"""

import os
import sys

PLAIN_MODULES = frozenset(sys.modules)  # what Python itself loads before the program

if __name__ == "sitecustomize":
    if os.getpid() == 1:
        from .parent import supervise

        supervise()
    elif os.environ.get("PYTHONPATH") in sys.path:  # a subinterpreter of the program imports this module too
        from .program import finish_restart

        finish_restart()
    # Only the program's process comes here. `site` takes this for an absent module, so no trace of this one remains.
    raise ImportError(name=__name__)
