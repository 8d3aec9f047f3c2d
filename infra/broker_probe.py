"""Proof that a Kafka works: write a record, read it back. A port that accepts connections proves nothing."""

import secrets

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from stream_trainer.errors import BrokerUnavailable

READY_TOPIC = "__stream_trainer_ready"


def round_trip(bootstrap_servers: str, wait_seconds: float) -> None:
    """Create a topic, write to it, read it back and delete it.

    Raises:
        BrokerUnavailable: any of it failed or took longer than `wait_seconds`.
    """
    milliseconds = int(wait_seconds * 1000)
    limits = {"bootstrap_servers": bootstrap_servers, "bootstrap_timeout_ms": milliseconds}
    try:
        admin = KafkaAdminClient(**limits)
        try:
            if READY_TOPIC in admin.list_topics():  # of a start that was killed
                admin.delete_topics([READY_TOPIC])
            admin.create_topics([NewTopic(READY_TOPIC, 1, 1)])
            try:
                admin.wait_for_topics([READY_TOPIC], timeout_ms=milliseconds)
                _write_and_read(limits, milliseconds)
            finally:
                admin.delete_topics([READY_TOPIC])
        finally:
            admin.close()
    except KafkaError as error:
        raise BrokerUnavailable(
            f"Kafka at {bootstrap_servers} did not take a record and give it back: {error}"
        ) from error


def _write_and_read(limits: dict[str, object], milliseconds: int) -> None:
    token = secrets.token_bytes(8)
    producer = KafkaProducer(**limits, enable_idempotence=False)
    try:
        producer.send(READY_TOPIC, token, partition=0).get(milliseconds / 1000)
    finally:
        producer.close()
    consumer = KafkaConsumer(**limits, auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition(READY_TOPIC, 0)])
        consumer.seek_to_beginning()
        polled = consumer.poll(timeout_ms=milliseconds)
    finally:
        consumer.close()
    if token not in [record.value for records in polled.values() for record in records]:
        raise BrokerUnavailable(f"Kafka at {limits['bootstrap_servers']} took a record and did not give it back")
