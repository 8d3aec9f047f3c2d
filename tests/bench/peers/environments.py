"""An environment for each peer, in the cache folder: made once, from pinned versions, with the torch that we have.

The servers' files of pins name no torch: the same build for all, hard-linked from uv's cache, makes them comparable.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from stream_trainer.errors import UsageError

PINS = Path(__file__).with_name("requirements")
_SHOWN = (
    "litserve",
    "bentoml",
    "mlserver",
    "deep-river",
    "river",
    "nannyml",
    "pandas",
    "matplotlib",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "pydantic",
    "torch",
)
_LIST = (
    "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)


def ensure(name: str, cache: Path, *, own_torch: bool = False) -> Path:
    """The environment's folder of programs (`bin`), made when it is not there.

    Args:
        name: of the file of pins.
        cache: the cache folder.
        own_torch: its pins name a torch of their own, or it needs none.

    Raises:
        UsageError: its packages cannot be installed.
    """
    pins = PINS / f"{name}.txt"
    torch = [] if own_torch else [f"torch=={version('torch').split('+')[0]}"]
    wanted = hashlib.sha256(f"{pins.read_text()}\n{''.join(torch)}\n{sys.version}".encode()).hexdigest()
    folder = cache / "bench" / "peers" / name
    stamp = folder / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--quiet", "--python", sys.executable, str(folder))
        python = str(folder / "bin" / "python")
        _uv("pip", "install", "--quiet", "--python", python, "--requirements", str(pins), *torch)
        stamp.write_text(wanted)
    return folder / "bin"


def versions(programs: Path) -> dict[str, str]:
    """What is installed of the packages that matter, in the order in which they are told."""
    done = subprocess.run([programs / "python", "-c", _LIST], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return {name: found[name] for name in _SHOWN if name in found}


def _uv(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"a peer's environment cannot be made: uv {arguments[0]}: {done.stderr.strip()}")
