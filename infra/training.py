"""The trainer as a process: Spark and torch started side by side, and monitor and joiner on the same Spark when asked."""

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from infra.beside import Beside
from infra.joining import PROCESS_OPTIONS, JoinerWatch
from infra.spark import build_session, stop_session, warm_up
from stream_trainer.errors import UsageError
from stream_trainer.settings import Settings
from stream_trainer.start import Start

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from stream_trainer.pipeline import Pipeline
    from stream_trainer.trainer import Trainer

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


def train_here(
    address: str,
    settings: Settings,
    start: Start,
    stop: threading.Event,
    *,
    with_monitor: bool = False,
    with_joiner: bool = False,
) -> None:
    """Train until told to stop.

    Raises:
        StreamTrainerError: see `Trainer.run`.
        UsageError: a joiner is wanted of a pipeline that joins nothing.
    """
    with ThreadPoolExecutor(1, "spark") as starting:
        session = starting.submit(_start_spark, settings, PROCESS_OPTIONS if with_joiner else {})
        pipeline = _load(address)
        spark = session.result()
    logger.info("settings %s, contract %s", settings.fingerprint(), pipeline.contract.fingerprint[:12])
    from stream_trainer.connections import Connections  # noqa: PLC0415 - it needs torch, which is there by now
    from stream_trainer.trainer import Trainer  # noqa: PLC0415

    try:
        connect = partial(Connections, pipeline, settings, spark, create_topics=start.create_topics)
        trainer = Trainer(pipeline=pipeline, settings=settings, connect=connect, start=start, stop=stop)
        watch = _MonitorWatch(spark, pipeline, settings, trainer) if with_monitor else nullcontext()
        create = start.create_topics
        joining = JoinerWatch(spark, pipeline, settings, create_topics=create) if with_joiner else nullcontext()
        with joining, watch, _metrics(pipeline, settings, trainer):
            trainer.run()
    finally:
        stop_session(spark)


def _metrics(pipeline: "Pipeline", settings: Settings, trainer: "Trainer") -> AbstractContextManager[object]:
    if settings.trainer.metrics_port is None:
        return nullcontext()
    try:
        from infra.trainer_metrics import metrics_told  # noqa: PLC0415 - training alone does not need it
    except ImportError as error:
        raise UsageError("trainer.metrics_port is set, which needs: pip install 'stream-trainer[monitor]'") from error
    return metrics_told(settings.trainer, lambda: trainer.lineage, tuple(pipeline.contract.segments))


class _MonitorWatch(Beside):
    """Keeps the monitor running beside the trainer, from its first version on."""

    def __init__(self, spark: "SparkSession", pipeline: "Pipeline", settings: Settings, trainer: "Trainer") -> None:
        super().__init__("monitor")
        self._arguments = (spark, pipeline, settings)
        self._trainer = trainer

    def _run(self) -> None:
        from monitors.main import page_beside  # noqa: PLC0415 - training alone does not need it

        with page_beside(*self._arguments[1:]):
            self._watch()

    def _watch(self) -> None:
        while self._trainer.lineage is None or self._trainer.lineage.head is None:
            if self._done.wait(_LOOK_SECONDS):
                return
        super()._run()

    def _follow(self) -> None:
        from infra.scraping import told  # noqa: PLC0415 - an extra
        from monitors.query import start_monitor  # noqa: PLC0415 - training alone does not need it

        monitor = start_monitor(*self._arguments)
        try:
            with told(monitor.metrics.registry, "monitor", self._arguments[2].monitor):
                while not self._done.wait(_LOOK_SECONDS):
                    if not monitor.query.isActive:
                        raise monitor.query.exception() or RuntimeError("its query ended by itself")
        finally:
            monitor.stop()


def _start_spark(settings: Settings, extra: Mapping[str, str]) -> "SparkSession":
    spark = build_session(settings, "stream-trainer", extra=extra)
    warm_up(spark)
    return spark


def _load(address: str) -> "Pipeline":
    """Import the pipeline and take one throw-away step: torch imports a good part of itself at the first."""
    import torch  # noqa: PLC0415 - seconds, spent while the JVM starts

    from stream_trainer.learner import Batch  # noqa: PLC0415
    from stream_trainer.loading import load_pipeline  # noqa: PLC0415
    from stream_trainer.strategies import local  # noqa: PLC0415

    pipeline = load_pipeline(address)
    spec = pipeline.spec
    row = Batch(features=torch.zeros(1, spec.width, dtype=torch.float64), labels=torch.zeros(1, dtype=torch.float64))
    local.learn(pipeline.learner, pipeline.learner.init(spec, 0), row)
    return pipeline
