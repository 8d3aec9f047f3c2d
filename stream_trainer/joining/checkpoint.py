"""The joiner's Spark checkpoint as the joiner reads it: its name, where it stands, and what a batch was planned over.

Nothing is ever written here. Spark's own files are read, on any file system that Hadoop knows.
"""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_trainer.errors import StreamFailed
from stream_trainer.joining.recovery import Place
from stream_trainer.offsets import Offsets


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder, or a URL, which takes a Spark context to read."""

    url: str
    context: Any = None

    def name(self) -> str:
        """Spark's name of it, empty before there is one."""
        found = self._read("metadata")
        return "" if found is None else str(json.loads(found)["id"])

    def place(self) -> Place:
        """Where it stands.

        Spark runs its newest planned batch again, unless that is the newest committed one.
        """
        planned, committed = (max(self._numbers(log), default=-1) for log in ("offsets", "commits"))
        following = planned + 1 if planned == committed else max(planned, 0)
        before = self._read(f"offsets/{following - 1}") if following else None
        return Place(
            query_id=self.name(),
            batch_id=following,
            at=0 if before is None else _planned_at(before),
        )

    def batch(self, batch_id: int) -> tuple[Offsets, int]:
        """The ends of a batch, and when it was planned in milliseconds.

        Raises:
            StreamFailed: there is no such batch.
        """
        entry = self._read(f"offsets/{batch_id}")
        if entry is None:
            raise StreamFailed(f"the joiner's offset log in {self.url} has no entry {batch_id}")
        ends: Offsets = {}
        for source in entry.splitlines()[2:]:
            for topic, partitions in json.loads(source).items():
                ends[topic] = {int(p): int(o) for p, o in partitions.items()}
        return ends, _planned_at(entry)

    def _numbers(self, log: str) -> list[int]:
        """The entries of a log of Spark's; their files are named by number."""
        if "://" not in self.url:
            return [int(path.name) for path in Path(self.url, log).glob("*") if path.name.isdigit()]
        files, path = self._hadoop(log)
        found = [str(status.getPath().getName()) for status in files.listStatus(path)] if files.exists(path) else []
        return [int(name) for name in found if name.isdigit()]

    def _read(self, name: str) -> str | None:
        if "://" not in self.url:
            path = Path(self.url, name)
            return path.read_text() if path.exists() else None
        files, path = self._hadoop(name)
        if not files.exists(path):
            return None
        with closing(files.open(path)) as stream:
            return str(self.context._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))  # noqa: SLF001

    def _hadoop(self, name: str) -> tuple[Any, Any]:
        jvm = self.context._jvm  # noqa: SLF001 - pyspark has no public way
        path = jvm.org.apache.hadoop.fs.Path(f"{self.url}/{name}")
        return path.getFileSystem(self.context._jsc.hadoopConfiguration()), path  # noqa: SLF001


def _planned_at(entry: str) -> int:
    return int(json.loads(entry.splitlines()[1])["batchTimestampMs"])
