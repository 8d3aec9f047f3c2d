"""How a command finds the pipeline that the user wrote."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stream_trainer.errors import UsageError

if TYPE_CHECKING:
    from stream_trainer.pipeline import Pipeline


def load_pipeline(address: str) -> "Pipeline":
    """Import a pipeline as uvicorn imports an app: `package.module:attribute`, from the working directory too.

    Raises:
        UsageError: the address is not of that form, or nothing of that kind is there.
    """
    module_name, _, attribute = address.partition(":")
    if not module_name or module_name.startswith(".") or not attribute:
        raise UsageError(
            f"{address!r}: name a pipeline as module:attribute, such as examples.flights.pipeline:pipeline"
        )
    from stream_trainer.pipeline import Pipeline  # noqa: PLC0415 - commands that load no pipeline pay for no torch

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(
            f"{address!r}: {error}; run from the folder that holds {module_name.split('.')[0]!r}"
        ) from error
    if not isinstance(found, Pipeline):
        raise UsageError(f"{address!r} is a {type(found).__name__}, not a Pipeline")
    return found
