"""What a run has measured, on disk: whole or not at all, so that one that is ended leaves nothing half."""

import json
from pathlib import Path
from typing import Any


def write(path: Path, measured: Any) -> None:
    """Anything that JSON can say; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(measured))
    part.replace(path)
