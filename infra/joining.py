"""The joiner as a process: a small Spark of its own, and an orderly end between two batches."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infra.spark import build_session, stop_session
from stream_trainer.errors import UsageError
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings

if TYPE_CHECKING:
    from stream_trainer.joining.joiner import Joining

logger = logging.getLogger(__name__)


def join_here(address: str, settings: Settings, stop: threading.Event, *, create_topics: bool = True) -> None:
    """Join until told to stop.

    Raises:
        StreamTrainerError: see `Joiner.run`.
    """
    pipeline = load_pipeline(address)
    if pipeline.join is None:
        raise UsageError(f"pipeline {pipeline.name!r} joins nothing: give it join=Join(…)")
    from stream_trainer.joining.joiner import Joiner  # noqa: PLC0415
    from stream_trainer.joining.query import JoinQuery, session_options  # noqa: PLC0415
    from stream_trainer.joining.writer import JoinWriter  # noqa: PLC0415
    from stream_trainer.kafka import Admin, topic_plans  # noqa: PLC0415

    spark = build_session(settings, f"{pipeline.name}-joiner", extra=session_options(settings))

    def connect(wrote: Callable[[Any, Any], None]) -> "Joining":
        plans = topic_plans(pipeline.name, settings.kafka, joined=True)
        wanted = [plans[short] for short in ("predictions", "labels", "examples", "unmatched", "join_commits")]
        with Admin(settings.kafka) as admin:
            if create_topics:
                admin.create_missing(wanted)
            else:
                admin.require(plan.name for plan in wanted)
        writer = JoinWriter(pipeline.topics, settings)
        return JoinQuery(spark, pipeline, settings, writer).start(wrote)

    try:
        logger.info("settings %s: joining %s", settings.fingerprint(), pipeline.topics.predictions)
        Joiner(connect=connect, max_restarts=settings.join.max_restarts, stop=stop).run()
    finally:
        stop_session(spark)
