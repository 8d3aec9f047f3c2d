"""A steady stream of labelled flights into Kafka."""

import threading
import time

from confluent_kafka import Producer

from examples.flights.replay import producer_options
from stream_trainer.settings import KafkaSettings
from tests.bench import flights

_PAUSE = 0.005
_DIFFERENT = 100_000


class SteadyLoad:
    """Sends `rate` examples a second until stopped; late ones are sent at once, so the mean rate holds."""

    def __init__(self, settings: KafkaSettings, topic: str, rate: float) -> None:
        self._producer = Producer(producer_options(settings))
        self._topic = topic
        self._rate = rate
        self._examples = flights.examples(_DIFFERENT)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the broker has everything."""
        self._stopped.set()
        self._thread.join()
        self._producer.flush(30)

    def _run(self) -> None:
        started, sent = time.monotonic(), 0
        while not self._stopped.wait(_PAUSE):
            due = int((time.monotonic() - started) * self._rate)
            for number in range(sent, due):
                key, value = self._examples[number % len(self._examples)]
                self._producer.produce(self._topic, key=key, value=value)
            sent = max(sent, due)
            self._producer.poll(0)
