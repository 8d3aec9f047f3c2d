"""A joiner as a process of its own that may kill itself around the commit of its n-th transaction.

python -m tests.joining.child PIPELINE BOOTSTRAP_SERVERS FOLDER never|before|after N
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from infra.joining import PROCESS_OPTIONS
from infra.spark import build_session, stop_session
from stream_trainer import Join, Pipeline
from stream_trainer.joining.joiner import Joiner, Joining
from stream_trainer.joining.query import JoinQuery, session_options
from stream_trainer.joining.writer import JoinWriter
from stream_trainer.settings import JoinSettings, KafkaSettings, Settings
from tests.integration.world import CONTRACT


class Deadly:
    """A producer whose process ends, as by `kill -9`, before or after the n-th commit."""

    def __init__(self, producer: Any, when: str, nth: int) -> None:
        self._producer = producer
        self._when = when
        self._left = nth

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, seconds: float) -> None:
        self._left -= 1
        if self._left == 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        self._producer.commit_transaction(seconds)
        if self._left == 0 and self._when == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def main(name: str, servers: str, folder: str, when: str, nth: str) -> None:
    kafka = KafkaSettings(bootstrap_servers=servers)
    join = JoinSettings(trigger_seconds=0.1, max_records_per_batch=40)
    settings = Settings(kafka=kafka, data_dir=Path(folder), join=join)
    rules = Join(on="prediction_id", horizon=timedelta(hours=1))
    pipeline = Pipeline(name=name, contract=CONTRACT, join=rules)
    spark = build_session(settings, "joiner", extra=PROCESS_OPTIONS | session_options(settings))

    def connect(wrote: Callable[[Any, Any], None]) -> Joining:
        writer = JoinWriter(pipeline.topics, settings)
        if when != "never":
            writer._producer = Deadly(writer._producer, when, int(nth))  # type: ignore[assignment]
        return JoinQuery(spark, pipeline, settings, writer).start(wrote)

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        Joiner(connect=connect, max_restarts=2, stop=stop).run()
    finally:
        stop_session(spark)


if __name__ == "__main__":
    main(*sys.argv[1:])
