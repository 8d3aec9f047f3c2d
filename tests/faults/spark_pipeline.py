"""`tests.faults.spark_pipeline:NAME` is the pipeline `NAME` (underscores for dashes): children find it by address alone."""

from stream_trainer import Pipeline
from tests.integration.world import CONTRACT


def __getattr__(name: str) -> Pipeline:
    if name.startswith("__"):
        raise AttributeError(name)
    return make_pipeline(name.replace("_", "-"))


def make_pipeline(name: str) -> Pipeline:
    """The same under any name: its features are those of `world.CONTRACT`."""
    return Pipeline(name=name, contract=CONTRACT, reference_rows=100)


def address(pipeline: Pipeline) -> str:
    """What a child is told."""
    return f"{__name__}:{pipeline.name.replace('-', '_')}"
