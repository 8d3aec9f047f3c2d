"""The trainer as a process: Spark and torch started side by side, and the monitor on the same Spark when asked."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from infra.spark import build_session, stop_session
from stream_trainer.learner import Batch
from stream_trainer.pipeline import Pipeline, load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.strategies import local
from stream_trainer.trainer import Start, Trainer

logger = logging.getLogger(__name__)


def train_here(
    address: str, settings: Settings, start: Start, stop: threading.Event, *, with_monitor: bool = False
) -> None:
    """Train until told to stop.

    Raises:
        StreamTrainerError: see `Trainer.run`.
    """
    with ThreadPoolExecutor(1, "torch") as starting:
        loading = starting.submit(_load, address)
        spark = build_session(settings, "stream-trainer")
        pipeline = loading.result()
    logger.info("settings %s, contract %s", settings.fingerprint(), pipeline.contract.fingerprint[:12])
    try:
        trainer = Trainer(pipeline=pipeline, settings=settings, spark=spark, start=start, stop=stop)
        if not with_monitor:
            trainer.run()
            return
        from monitors.query import start_monitor  # noqa: PLC0415 - training alone does not need it

        monitor = start_monitor(spark, pipeline, settings)
        try:
            trainer.run()
        finally:
            monitor.stop()
    finally:
        stop_session(spark)


def _load(address: str) -> Pipeline:
    """Import the pipeline and take one throw-away step: torch imports a good part of itself at the first."""
    pipeline = load_pipeline(address)
    spec = pipeline.spec
    row = Batch(features=torch.zeros(1, spec.width, dtype=torch.float64), labels=torch.zeros(1, dtype=torch.float64))
    local.learn(pipeline.learner, pipeline.learner.init(spec, 0), row)
    return pipeline
