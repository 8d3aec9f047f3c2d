"""A decision told at once: one record to `P.models`, for whoever follows it.

Only a word: who follows looks at the store anyway, so whatever goes wrong here costs one of its intervals at most.
"""

from datetime import datetime

from stream_trainer.errors import BrokerUnavailable, UsageError
from stream_trainer.kafka import Admin, ControlProducer
from stream_trainer.outbox import announcement
from stream_trainer.settings import KafkaSettings
from stream_trainer.store import Version
from stream_trainer.topics import Topics


def announce(
    settings: KafkaSettings, pipeline: str, alias: str, version: Version | None, entry: int, at: datetime
) -> str | None:
    """Say who an alias names now; why that was not possible, None when it was. Creates no topic.

    Args:
        settings: a broker that runs already.
        pipeline: whose `P.models`.
        alias: `champion` or `challenger`.
        version: None says that nobody challenges: a record without a value.
        entry: the number of the alias's entry that decided it.
        at: now, UTC.
    """
    topic = Topics(pipeline).models
    value = None
    if version is not None:
        covered = version.manifest.covered_at or version.manifest.created_at
        value = announcement(version, covered, at, alias=entry)
    try:
        with Admin(settings) as admin:
            admin.require([topic])
        producer = ControlProducer(settings)
        try:
            producer.send(topic, [(alias, value)])
        finally:
            producer.close()
    except (BrokerUnavailable, UsageError) as error:
        return str(error)
    return None
