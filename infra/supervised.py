"""The first code of every supervised child: it watches for the end of the supervisor, then runs the child's module.

`python -m infra.supervised DESCRIPTOR SECONDS MODULE ARGUMENTS…`. A supervisor that is killed cannot end its children.
They inherit a pipe that it alone holds open, so they read its end, on every system and whoever killed it.
"""

import os
import runpy
import signal
import sys
import threading
import time

_POLL_SECONDS = 0.1


def end_with(descriptor: int, seconds: float) -> None:
    """Once the pipe ends: SIGTERM to this process, and after `seconds` SIGKILL to its whole session.

    The session ends only where this process leads it, as every supervised child does.
    """

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(int(seconds / _POLL_SECONDS)):  # counted: a machine that stood still takes nothing from it
            time.sleep(_POLL_SECONDS)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def main() -> None:
    """Run a module as `python -m` does."""
    descriptor, seconds, module, *arguments = sys.argv[1:]
    end_with(int(descriptor), float(seconds))
    sys.argv = [sys.argv[0], *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
