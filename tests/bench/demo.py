"""`stream-trainer demo` as a process of its own, in a fresh folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra import broker
from infra.supervisor import Child, Unit
from tests.bench.processes import free_port, running
from tests.bench.world import fresh_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningDemo:
    """`started` is on the monotonic clock."""

    child: Child
    port: int
    folder: Path
    started: float


@contextmanager
def demo(seconds: float) -> Iterator[RunningDemo]:
    """Started now; ended, broker included, when the block ends."""
    with fresh_settings() as settings:
        folder, port = settings.data_dir / "demo", free_port()
        unit = Unit(
            name="demo",
            module="stream_trainer.cli",
            arguments=["demo", "--for", f"{seconds:.0f}", "--port", str(port), "--data-dir", str(folder)],
            variables={"STREAM_TRAINER_CACHE_DIR": str(settings.cache_dir)},
            log=settings.data_dir / "demo.log",
            drain_seconds=120,
        )
        started = time.monotonic()
        try:
            with running([unit]) as children:
                yield RunningDemo(child=children[0], port=port, folder=folder, started=started)
        finally:
            broker.stop(folder / "broker")
