"""The stages of the pipeline, and what must hold before any of them imports anything."""

import os
import signal

# Threads that wait for work by spinning would fight with other programs for the cores. OpenMP
# reads this once, when torch is imported; in lower case, as a Turkish i is no I to it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A notebook hands the name of its own backend on; matplotlib refuses one that is not installed.
os.environ.pop("MPLBACKEND", None)


def _leave(*_: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(1)


# The C code of NumPy and torch turns a Ctrl-C amid an import into an ImportError, or drops it.
# There is nothing to clean up yet. From `command.run` on, Python's own handler is back.
signal.signal(signal.SIGINT, _leave)

import src  # noqa: E402, F401  (says so where the environment is not active)
