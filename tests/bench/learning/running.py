"""Runs what is missing, a process for each job, so many at a time; ends what it has started when it is ended."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from tests.bench.learning import worker
from tests.bench.learning.contestants import Contestant
from tests.bench.learning.protocol import Cell
from tests.bench.learning.stream import Stream
from tests.bench.learning.worker import Job

_ROOT = Path(__file__).parents[3]
_GRACE_SECONDS = 120.0  # loading a stream, one block that takes long
_PATIENCE = 8.0  # a learner has its limit in CPU seconds, on a machine that may do other things
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(slots=True)
class Processes:
    """Programs of the environments. `homes`: from an environment's name to its folder of programs."""

    homes: Mapping[str, Path]
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)
    _ended: bool = False

    def python(self, environment: str | None, module: str, argument: Path, timeout: float | None = None) -> None:
        """Run `python -m module argument`, with one thread a process.

        Raises:
            TimeoutExpired: it was ended.
            RuntimeError: it failed; with the end of what it wrote.
        """
        program = sys.executable if environment is None else str(self.homes[environment] / "python")
        variables = os.environ | {"PYTHONPATH": str(_ROOT)} | dict.fromkeys(_THREADS, "1")
        with tempfile.TemporaryFile() as log:
            with self._lock:
                if self._ended:
                    raise RuntimeError("ended")
                process = subprocess.Popen(
                    [program, "-m", module, argument], env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
                self._running.add(process)
            try:
                code = process.wait(timeout)
            finally:
                process.kill()
                process.wait()
                self._running.discard(process)
            if code:
                log.seek(0)
                raise RuntimeError(f"{module} failed with {code}: {log.read().decode(errors='replace')[-1500:]}")

    def end(self) -> None:
        """End everything that runs; nothing starts any more."""
        with self._lock:
            self._ended = True
            for process in tuple(self._running):
                process.kill()


def run_all(
    jobs: Sequence[tuple[Contestant, Job]], processes: Processes, at_once: int, say: Callable[[str], None]
) -> list[str]:
    """Every job; what failed, a line each. Cells that were written stay, whatever happens."""
    failed: list[str] = []
    done = 0

    def one(contestant: Contestant, job: Job) -> None:
        nonlocal done
        name = f"{job.learner} on {job.stream.name}, seed {job.seed}"
        try:
            _run(contestant, job, processes)
        except RuntimeError as error:
            failed.append(f"{name}: {error}")
        done += 1
        say(f"{done}/{len(jobs)} {name}")

    with ThreadPoolExecutor(at_once) as pool:
        try:
            for _ in pool.map(lambda pair: one(*pair), jobs):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise
    return failed


def _run(contestant: Contestant, job: Job, processes: Processes) -> None:
    passes = 1 if job.shared else len(job.lengths)
    with tempfile.TemporaryDirectory(prefix="stream-trainer-bench-") as folder:
        path = Path(folder) / "job.json"
        job.save(path)
        try:
            processes.python(
                contestant.environment, contestant.module, path, _PATIENCE * passes * (job.limit + _GRACE_SECONDS)
            )
        except subprocess.TimeoutExpired:
            _cut_off(job)


def _cut_off(job: Job) -> None:
    """A block that never ended: the cells that are not there say so."""
    task = Stream.load(job.stream).task
    for size, path in job.cells.items():
        if not path.exists():
            cell = Cell(
                task=task, size=size, rows=job.lengths[size], scored=0, first=(), second=(), auc=None,
                seconds=(0.0, 0.0), broken=0, limit=job.limit,
            )  # fmt: skip
            worker.write(path, cell)
