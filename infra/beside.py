"""What runs in a thread beside the trainer; one that fails is started again, and never ends learning."""

import logging
import threading
from abc import ABC, abstractmethod

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 10.0


class Beside(ABC):
    """Runs for the length of a block. `name`: of its thread, and in the log."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @abstractmethod
    def _follow(self) -> None:
        """Work until `_done` is set."""

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must never end learning
                logger.warning("the %s is started again in %.0f s: %s", self._name, _AGAIN_SECONDS, error)
                self._done.wait(_AGAIN_SECONDS)
