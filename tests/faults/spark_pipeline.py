"""`tests.faults.spark_pipeline:NAME` is the pipeline `NAME` (underscores for dashes): children find it by address alone."""

from datetime import timedelta

from stream_trainer import Join, Pipeline
from tests.integration.world import CONTRACT

JOIN = Join(on="prediction_id", horizon=timedelta(hours=1))
# The horizon is short enough for timeouts between kills; the broker may stand still for seconds with a record in hand.
TIMED = Join(
    on="prediction_id",
    horizon=timedelta(seconds=20),
    remember=timedelta(seconds=60),
    patience=timedelta(seconds=5),
    on_timeout=False,
)


def __getattr__(name: str) -> Pipeline:
    if name.startswith("__"):
        raise AttributeError(name)
    return make_pipeline(name.replace("_", "-"))


def make_pipeline(name: str) -> Pipeline:
    """The same under any name: its features are those of `world.CONTRACT`; `joined-…` and `timed-…` have a joiner too."""
    join = {"joined": JOIN, "timed": TIMED}.get(name.partition("-")[0])
    return Pipeline(name=name, contract=CONTRACT, join=join, reference_rows=100)


def address(pipeline: Pipeline) -> str:
    """What a child is told."""
    return f"{__name__}:{pipeline.name.replace('-', '_')}"
