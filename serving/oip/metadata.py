"""What the protocol's model metadata says of a pipeline, written from its contract."""

from collections.abc import Sequence
from typing import Any

from serving.oip.fields import Field, Output, inputs, outputs
from stream_trainer.pipeline import Pipeline

PLATFORM = "stream_trainer_pytorch"


def model_metadata(pipeline: Pipeline, versions: Sequence[int]) -> dict[str, Any]:
    """The model metadata response; `versions` are those that can be asked for."""
    return {
        "name": pipeline.name,
        "versions": [str(number) for number in versions],
        "platform": PLATFORM,
        "inputs": [_input(field) for field in inputs(pipeline.contract)],
        "outputs": [_output(output) for output in outputs(pipeline.contract)],
        "properties": {"contract": pipeline.contract.fingerprint, "label": pipeline.contract.label.name},
    }


def _input(field: Field) -> dict[str, Any]:
    parameters = {"optional": not field.required}
    return {"name": field.name, "datatype": field.datatype, "shape": field.shape, "parameters": parameters}


def _output(output: Output) -> dict[str, Any]:
    found: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape(-1)}
    return found | {"parameters": dict(output.parameters)} if output.parameters else found
