"""What reading a file costs in memory: each file is read in a fork, which tells its outcome and by how much it grew.

`python -m tests.security.measured KIND PATH…` prints one JSON object a file.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_UNIT = 1 if sys.platform == "darwin" else 1024
MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """How reading ended, and by how many bytes the process had grown at its largest."""

    outcome: str
    grown: int


def costs(kind: str, paths: Sequence[Path]) -> list[Cost]:
    """Read files of one kind, each in a process of its own."""
    command = [sys.executable, "-m", "tests.security.measured", kind, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=True)
    found = [Cost(**json.loads(line)) for line in done.stdout.splitlines()]
    assert len(found) == len(paths), done.stderr
    return found


def _tensors(data: bytes) -> object:
    from stream_trainer.store import tensors

    return len(tensors.from_bytes(data, "the file"))


def _table(data: bytes) -> object:
    from stream_trainer.ipc import Limits
    from stream_trainer.reference import table_from_bytes

    return table_from_bytes(data, Limits(unpacked=64 * MIB, cells=2**22)).num_rows


def _manifest(data: bytes) -> object:
    from stream_trainer.store import manifest as manifests

    return manifests.decode(data, "the file").version


def _example(data: bytes) -> object:
    from stream_trainer.decode import decode
    from tests.core.worlds import CONTRACT, kafka_batch

    reasons = {str(row).split(":", 1)[0] for row in _reasons(decode(CONTRACT, kafka_batch([data], arrow=True)))}
    return sorted(reasons)


def _reasons(batch: Any) -> list[str | None]:
    found: list[str | None] = batch.column("_reason").unique().to_pylist()
    return found


READERS: dict[str, Callable[[bytes], object]] = {
    "tensors": _tensors,
    "table": _table,
    "manifest": _manifest,
    "example": _example,
}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def _in_a_fork(reader: Callable[[bytes], object], path: Path) -> dict[str, Any]:
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        data = path.read_bytes()
        before = _peak()
        try:
            outcome = f"read {reader(data)}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            outcome = f"{type(error).__name__}: {error}"[:400]
        os.write(sender, json.dumps({"outcome": outcome, "grown": _peak() - before}).encode())
        os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    told = os.read(receiver, 65_536)
    os.close(receiver)
    found: dict[str, Any] = json.loads(told) if told else {"outcome": "crashed", "grown": 0}
    return found


def main(kind: str, paths: Sequence[str]) -> None:
    reader = READERS[kind]
    with contextlib.suppress(Exception):
        reader(b"")  # imports are no part of the cost
    for path in paths:
        print(json.dumps(_in_a_fork(reader, Path(path))), flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
