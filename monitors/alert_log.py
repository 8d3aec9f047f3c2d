"""`P.alerts` with the topic's id: a position in it is only good for the topic it was taken from."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from stream_trainer.kafka import Admin
from stream_trainer.settings import KafkaSettings
from stream_trainer.topic_reading import KafkaLog


class KafkaAlerts(KafkaLog):
    """See `forwarding.AlertLog`."""

    def __init__(self, settings: KafkaSettings, topic: str, topic_id: str, partitions: list[int]) -> None:
        super().__init__(settings, topic, partitions)
        self.topic_id = topic_id


@contextmanager
def open_alerts(settings: KafkaSettings, topic: str) -> Iterator[KafkaAlerts]:
    """The topic as it is now.

    Raises:
        BrokerUnavailable: Kafka cannot be reached.
        InputLost: there is no such topic.
    """
    with Admin(settings) as admin:
        topic_id, partitions = admin.topic(topic)
    with closing(KafkaAlerts(settings, topic, topic_id, partitions)) as log:
        yield log
