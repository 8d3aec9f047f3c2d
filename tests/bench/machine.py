"""On what the figures were taken."""

import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from infra.jars import ROOTS
from infra.java import find_java
from stream_trainer.settings import Settings

_GIB = 2**30


def describe() -> str:
    """One line: cores, memory, and the versions that matter."""
    memory = psutil.virtual_memory().total / _GIB
    cores = len(psutil.Process().cpu_affinity()) if platform.system() == "Linux" else psutil.cpu_count()
    parts = [
        f"{cores} cores, {memory:.0f} GiB of memory",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        f"torch {version('torch')}",
        f"Spark {version('pyspark')}",
        f"Kafka {ROOTS['kafka'][2]}",
        f"Java {find_java(Settings().cache_dir).version}",
    ]
    return "; ".join(parts)


def file_system(folder: Path) -> str:
    """Of what kind the file system is that a folder is on."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "an unknown file system"
