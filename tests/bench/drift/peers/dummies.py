"""Two monitors that look at nothing: every figure of a real one lies between theirs."""

import sys

from tests.bench.drift import worker
from tests.bench.drift.detectors import Rows


class Dummy:
    """Always the same answer."""

    remembers = False

    def __init__(self, answer: bool) -> None:
        self._answer = answer

    def fit(self, reference: Rows) -> None:
        """Nothing is learned."""

    def alarm(self, window: Rows) -> set[str]:
        return set(window) if self._answer else set()


def build(name: str, rows: int) -> Dummy:
    return Dummy(name == "always")


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
