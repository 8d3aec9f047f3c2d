"""Records written in a thread for the length of a block, whether the broker is there or not."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from confluent_kafka import Producer

from stream_trainer.kafka import librdkafka_options
from stream_trainer.meanwhile import meanwhile
from stream_trainer.settings import Settings


@contextmanager
def producing(
    settings: Settings, write: Callable[[Producer, threading.Event], None], flush_seconds: float
) -> Iterator[None]:
    """`write` is given a producer, and what is set at the end of the block; then all has to be acknowledged in time."""
    options = {"enable.idempotence": True, "message.timeout.ms": 600_000, "partitioner": "murmur2_random"}
    producer = Producer({**librdkafka_options(settings.kafka), **options, "log_level": 0})
    try:
        with meanwhile(partial(write, producer), "traffic"):
            yield
    finally:
        assert producer.flush(flush_seconds) == 0, "records were never acknowledged"
