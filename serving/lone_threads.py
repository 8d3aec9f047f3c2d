"""Threads that compute alone.

torch is told by thread how many others may help it: in a new thread a product of matrices is divided among all cores,
by a team whose members then spin for the next one. A version that was loaded so took a core from the requests.
"""

import threading
from collections.abc import Callable

import torch


def lone_thread(run: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread, not started yet, in which torch uses no other."""

    def alone() -> None:
        torch.set_num_threads(1)
        run()

    return threading.Thread(target=alone, name=name, daemon=True)
