"""When each version began to answer, by asking every 20 ms."""

import threading
import time
from bisect import bisect_left

from tests.bench.service import Service

_PAUSE = 0.02


class Watch:
    """Follows one service in a thread. `first` gives wall-clock seconds."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._versions: list[int] = []
        self._times: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()
        self._service.close()

    @property
    def newest(self) -> int:
        """The highest version that has answered."""
        return self._versions[-1] if self._versions else 0

    @property
    def answered(self) -> list[tuple[float, int]]:
        """Each new highest version with the instant of its first answer."""
        return list(zip(self._times, self._versions, strict=True))

    def first(self, version: int) -> float:
        """When this or a later version first answered; infinity when none did."""
        place = bisect_left(self._versions, version)
        return self._times[place] if place < len(self._times) else float("inf")

    def _run(self) -> None:
        while not self._stopped.wait(_PAUSE):
            found = self._service.version()
            if found is not None and found > self.newest:
                self._times.append(time.time())
                self._versions.append(found)
