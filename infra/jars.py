"""The jars of Kafka and of Spark's Kafka connector: pinned, fetched once into a per-user folder, checked on each use.

`jars.lock` names every jar with its SHA-256. A folder of jars is filled beside its final place and renamed, so it is
either whole or not there; a folder that was damaged later is noticed by its digests and mended.

`python -m infra.jars relock` writes the lock anew from the two root artifacts below.
"""

import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Literal

from infra import ivy
from infra.filelock import exclusive
from infra.java import Java, find_java
from stream_trainer.errors import SetupError
from stream_trainer.settings import Settings

JarSet = Literal["kafka", "spark"]
ROOTS: dict[JarSet, ivy.Coordinates] = {
    "kafka": ("org.apache.kafka", "kafka_2.13", "4.4.0"),
    "spark": ("org.apache.spark", "spark-sql-kafka-0-10_2.13", "4.2.0"),
}
_HEADER = "# set group:artifact:version sha256 - made by `python -m infra.jars relock`\n"
_LOCK_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Jar:
    """One pinned jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """Its name on disk."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def coordinates(self) -> ivy.Coordinates:
        """What Maven Central knows it by."""
        return self.group, self.artifact, self.version


Fetch = Callable[[Sequence[Jar], Path], None]


def ensure_jars(
    settings: Settings,
    which: JarSet,
    *,
    fetch: Fetch | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """The verified jars of one set; downloads what is missing or damaged, else touches no network.

    `fetch` puts jars into a folder (default: Ivy); `report` gets a line when there is something to do.

    Raises:
        SetupError: a jar could not be had, or what came has the wrong digest; nothing was installed then.
    """
    wanted = pinned(which)
    folder = jar_folder(settings, which)
    if not _unfit(wanted, folder):
        return [folder / jar.filename for jar in wanted]
    with exclusive(folder.with_suffix(".lock"), wait_seconds=_LOCK_SECONDS):
        if missing := _unfit(wanted, folder):
            report(f"fetching {len(missing)} {which} jars into {folder}")
            _install(wanted, missing, folder, fetch or partial(_fetch_with_ivy, settings))
    return [folder / jar.filename for jar in wanted]


def installed(settings: Settings, which: JarSet) -> bool:
    """Whether `ensure_jars` would have nothing to do."""
    return not _unfit(pinned(which), jar_folder(settings, which))


def jar_folder(settings: Settings, which: JarSet) -> Path:
    """Named after the pins, so that two releases of this project never disturb each other."""
    pins = "".join(jar.sha256 for jar in pinned(which))
    return settings.cache_dir.absolute() / "jars" / f"{which}-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"


def pinned(which: JarSet) -> list[Jar]:
    """The jars of one set as the lock names them."""
    return [jar for name, jar in _parse(files("infra").joinpath("jars.lock").read_text()) if name == which]


def _parse(text: str) -> Iterable[tuple[str, Jar]]:
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, coordinates, digest = line.split()
            group, artifact, version = coordinates.split(":")
            yield name, Jar(group=group, artifact=artifact, version=version, sha256=digest)


def _unfit(wanted: Iterable[Jar], folder: Path) -> list[Jar]:
    """Those that are not in the folder with the right bytes (hashing all of them takes about 0.1 s)."""
    return [jar for jar in wanted if _digest(folder / jar.filename) != jar.sha256]


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return None


def _install(wanted: Sequence[Jar], missing: Sequence[Jar], folder: Path, fetch: Fetch) -> None:
    """Fill a folder beside the final one, check it, then swap it in; the sound jars of an old one are kept."""
    for leftover in folder.parent.glob(f".{folder.name}-*"):  # of a run that was killed; we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True) as work:
        stage = Path(work) / "jars"
        stage.mkdir()
        for jar in set(wanted) - set(missing):
            shutil.copy2(folder / jar.filename, stage / jar.filename)
        fetch(missing, stage)
        _refuse_strangers(missing, stage)
        if folder.exists():
            folder.rename(Path(work) / "replaced")
        stage.rename(folder)


def _refuse_strangers(fetched: Iterable[Jar], stage: Path) -> None:
    for jar in fetched:
        found = _digest(stage / jar.filename)
        if found is None:
            raise SetupError(f"{jar.filename} did not arrive: check the network and run `stream-trainer setup` again")
        if found != jar.sha256:
            raise SetupError(
                f"{jar.filename} refused: its SHA-256 is {found}, the lock says {jar.sha256}."
                " Something between this machine and Maven Central changed it; nothing was installed"
            )


def _fetch_with_ivy(settings: Settings, wanted: Sequence[Jar], folder: Path) -> None:
    ivy.fetch(find_java(settings.cache_dir), [jar.coordinates for jar in wanted], folder)


def relock(java: Java) -> str:
    """The text of a new lock: both roots resolved, with a log binding for Kafka and without what pyspark ships."""
    lines = []
    with tempfile.TemporaryDirectory() as work:
        for which, root in ROOTS.items():
            folder = Path(work) / which
            folder.mkdir()
            found = ivy.resolve(java, root, folder)
            if which == "kafka":
                binding = _log_binding(found)
                ivy.fetch(java, [binding], folder)
                found.append(binding)
            else:
                found = _not_in_pyspark(found)
            for group, artifact, version in sorted(found):
                digest = _digest(folder / f"{artifact}-{version}.jar")
                lines.append(f"{which} {group}:{artifact}:{version} {digest}\n")
    return _HEADER + "".join(lines)


def _log_binding(found: Iterable[ivy.Coordinates]) -> ivy.Coordinates:
    """Kafka logs through slf4j 1.7 and brings log4j2, but not what connects the two."""
    version = next(version for _, artifact, version in found if artifact == "log4j-core")
    return "org.apache.logging.log4j", "log4j-slf4j-impl", version


def _not_in_pyspark(found: Iterable[ivy.Coordinates]) -> list[ivy.Coordinates]:
    shipped = {re.sub(r"-[0-9][^-]*(-.*)?\.jar$", "", path.name) for path in ivy.pyspark_jars().glob("*.jar")}
    return [coordinates for coordinates in found if coordinates[1] not in shipped]


if __name__ == "__main__":
    if sys.argv[1:] != ["relock"]:
        sys.exit("usage: python -m infra.jars relock")
    Path(str(files("infra").joinpath("jars.lock"))).write_text(relock(find_java(Settings().cache_dir)))
