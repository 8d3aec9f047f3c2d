"""Kafka as this project uses it: typed connection settings, topics, announcements, rejected records.

Control topics go through kafka-python; what has volume goes through librdkafka (`librdkafka_options`). Every reader
is read-committed and every producer partitions by murmur2, so that Java and Python agree.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.net.compat import KafkaNetClient

from stream_trainer.errors import BrokerUnavailable, InputLost, UsageError
from stream_trainer.settings import KafkaSettings

CONTROL_BYTES = 16 * 2**20
_HOUR_MS = 3_600_000


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """The connection part of kafka-python's options.

    Raises:
        BrokerUnavailable: no bootstrap servers are known.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": _bootstrap(settings).split(","),
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": int(settings.request_timeout_seconds * 1000),
        "bootstrap_timeout_ms": int(settings.request_timeout_seconds * 1000),
    }
    if settings.sasl_mechanism and settings.sasl_password:
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    paths = {
        "ssl_cafile": settings.ssl_cafile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
    }
    options |= {name: str(path) for name, path in paths.items() if path}
    if settings.ssl_key_password:
        options["ssl_password"] = settings.ssl_key_password.get_secret_value()
    return options


def librdkafka_options(settings: KafkaSettings) -> dict[str, str | int]:
    """The connection part of a confluent-kafka client's options."""
    options: dict[str, str | int] = {
        "bootstrap.servers": _bootstrap(settings),
        "security.protocol": settings.security_protocol,
        "socket.timeout.ms": int(settings.request_timeout_seconds * 1000),
    }
    texts = {
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "ssl.ca.location": settings.ssl_cafile,
        "ssl.certificate.location": settings.ssl_certfile,
        "ssl.key.location": settings.ssl_keyfile,
    }
    options |= {name: str(value) for name, value in texts.items() if value}
    secrets = {"sasl.password": settings.sasl_password, "ssl.key.password": settings.ssl_key_password}
    return options | {name: secret.get_secret_value() for name, secret in secrets.items() if secret}


def spark_options(settings: KafkaSettings) -> dict[str, str]:
    """The connection part of Spark's Kafka source options."""
    options = {
        "kafka.bootstrap.servers": _bootstrap(settings),
        "kafka.security.protocol": settings.security_protocol,
        "kafka.isolation.level": "read_committed",
    }
    if settings.sasl_mechanism and settings.sasl_password and settings.sasl_username:
        options["kafka.sasl.mechanism"] = settings.sasl_mechanism
        options["kafka.sasl.jaas.config"] = _jaas(
            settings.sasl_mechanism, settings.sasl_username, settings.sasl_password.get_secret_value()
        )
    if settings.ssl_cafile:
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": str(settings.ssl_cafile)}
    if settings.ssl_keyfile and settings.ssl_certfile:
        options |= {
            "kafka.ssl.keystore.type": "PEM",
            "kafka.ssl.keystore.certificate.chain": settings.ssl_certfile.read_text(),
            "kafka.ssl.keystore.key": settings.ssl_keyfile.read_text(),
        }
        if settings.ssl_key_password:
            options["kafka.ssl.key.password"] = settings.ssl_key_password.get_secret_value()
    return options


def _jaas(mechanism: str, username: str, password: str) -> str:
    module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
    quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in (username, password)]
    return f'org.apache.kafka.common.security.{module} required username="{quoted[0]}" password="{quoted[1]}";'


def _bootstrap(settings: KafkaSettings) -> str:
    if settings.bootstrap_servers is None:
        raise BrokerUnavailable(
            "no Kafka is configured: set STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS or run `stream-trainer broker start`"
        )
    return settings.bootstrap_servers


def connected(kind: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """A client of kafka-python.

    One that finds no broker leaves its thread and its sockets behind (3.0.12): whoever asks again and again while Kafka is
    down would run out of both.
    """
    inner: list[KafkaNetClient] = []

    def client(**config: Any) -> KafkaNetClient:
        inner.append(KafkaNetClient(**config))
        return inner[-1]

    try:
        return kind(**options, kafka_client=client)
    except BaseException:
        for one in inner:
            one.close()
        raise


@contextmanager
def reached(what: str, settings: KafkaSettings) -> Iterator[None]:
    """Turn a client error into `BrokerUnavailable` that says what was being done and where."""
    try:
        yield
    except KafkaError as error:
        raise BrokerUnavailable(
            f"{what} failed at {settings.bootstrap_servers}: {type(error).__name__}: {error}; is the broker up?"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPlan:
    """How a topic is made when it is missing."""

    name: str
    partitions: int
    configs: Mapping[str, str]


def topic_plans(pipeline: str, settings: KafkaSettings, *, joined: bool = False) -> dict[str, TopicPlan]:
    """The topics of a pipeline by their short name, with stated partitions, retention and cleanup policy.

    `joined`: those too that only a pipeline with a `Join` has.
    """
    retention = {"retention.ms": str(int(settings.retention_hours * _HOUR_MS)), "retention.bytes": "-1"}
    logs = {"cleanup.policy": "delete", "max.message.bytes": str(CONTROL_BYTES), **retention}
    compacted = {"cleanup.policy": "compact", "max.message.bytes": str(CONTROL_BYTES)}
    configs = {
        "examples": (settings.partitions, logs | {"message.timestamp.type": "LogAppendTime"}),
        "predictions": (settings.partitions, logs | {"message.timestamp.type": "LogAppendTime"}),
        "rejected": (1, compacted),
        "models": (1, compacted | {"segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}),
        "alerts": (1, compacted),
        "actions": (1, compacted),
    }
    if joined:
        configs |= {
            "labels": (settings.partitions, logs | {"message.timestamp.type": "LogAppendTime"}),
            "unmatched": (settings.partitions, logs),
            "join_commits": (1, configs["models"][1]),
        }
    return {
        short: TopicPlan(name=f"{pipeline}.{short}", partitions=partitions, configs=config)
        for short, (partitions, config) in configs.items()
    }


class Admin:
    """Topics: create the missing, look at ids, starts and ends."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        with reached("connecting", settings):
            self._client = connected(KafkaAdminClient, client_options(settings))

    def close(self) -> None:
        """Release the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_missing(self, plans: Iterable[TopicPlan]) -> list[str]:
        """Create the topics that are not there; their names."""
        with reached("listing topics", self.settings):
            existing = set(self._client.list_topics())
        wanted = [plan for plan in plans if plan.name not in existing]
        with reached("creating topics", self.settings):
            for plan in wanted:
                topic = NewTopic(
                    plan.name,
                    num_partitions=plan.partitions,
                    replication_factor=self.settings.replication_factor,
                    topic_configs=dict(plan.configs),
                )
                try:
                    self._client.create_topics([topic])
                except TopicAlreadyExistsError:
                    continue
            if wanted:
                self._client.wait_for_topics([plan.name for plan in wanted])
        return [plan.name for plan in wanted]

    def require(self, topics: Iterable[str]) -> None:
        """Make sure that topics exist.

        Raises:
            UsageError: one does not.
        """
        with reached("listing topics", self.settings):
            missing = sorted(set(topics) - set(self._client.list_topics()))
        if missing:
            raise UsageError(f"missing topics: {', '.join(missing)}; create them, or leave out --no-create")

    def delete(self, topic: str) -> None:
        """Delete a topic and its records."""
        with reached(f"deleting {topic}", self.settings):
            self._client.delete_topics([topic])

    def topic_id(self, topic: str) -> str:
        """The topic's canonical UUID.

        Raises:
            InputLost: there is no such topic.
        """
        return self.topic(topic)[0]

    def partitions(self, topic: str) -> list[int]:
        """The topic's partitions, ascending."""
        return self.topic(topic)[1]

    def topic(self, topic: str) -> tuple[str, list[int]]:
        """Id and partitions of a topic, seen at one instant.

        Raises:
            InputLost: there is no such topic.
        """
        found = self._describe(topic)
        return str(found["topic_id"]), sorted(int(p["partition_index"]) for p in found["partitions"])

    def show_progress(self, group: str, positions: Mapping[TopicPartition, Any]) -> None:
        """Commit positions to a consumer group that nobody is a member of."""
        with reached(f"committing progress of {group}", self.settings):
            self._client.alter_group_offsets(group, dict(positions))

    def _describe(self, topic: str) -> dict[str, Any]:
        with reached(f"describing {topic}", self.settings):
            found: list[dict[str, Any]] = self._client.describe_topics([topic])
        if not found or found[0].get("error_code"):
            raise InputLost(f"topic {topic} is not there: it was deleted, or never created")
        return found[0]


class Log:
    """Where a topic's partitions begin and end, as a read-committed reader sees them."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        with reached("connecting", settings):
            self._consumer = committed_reader(settings)

    def close(self) -> None:
        """Release the connection."""
        self._consumer.close()

    def starts(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """The first offset of each partition that still exists."""
        return self._asked(self._consumer.beginning_offsets, "first", topic, partitions)

    def ends(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """The next offset of each partition."""
        return self._asked(self._consumer.end_offsets, "last", topic, partitions)

    def _asked(
        self,
        ask: Callable[[list[TopicPartition]], dict[TopicPartition, int]],
        which: str,
        topic: str,
        ps: Sequence[int],
    ) -> dict[int, int]:
        wanted = [TopicPartition(topic, p) for p in ps]
        with reached(f"listing the {which} offsets of {topic}", self.settings):
            try:
                found = ask(wanted)
            except KeyError:  # a partition is younger than what the client knows of the topic
                self._consumer.topics()
                try:
                    found = ask(wanted)
                except KeyError as error:
                    raise BrokerUnavailable(f"the broker does not know {error.args[0]} yet") from error
        return {tp.partition: int(offset) for tp, offset in found.items()}


def committed_reader(settings: KafkaSettings, **options: Any) -> KafkaConsumer:
    """A read-committed consumer in no group; `options` are kafka-python's."""
    own = {"isolation_level": "read_committed", "enable_auto_commit": False, "group_id": None}
    return connected(KafkaConsumer, {**client_options(settings), **own, **options})


class ControlProducer:
    """Keyed JSON to control topics, synchronous: what `send` returned from is on the broker."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        with reached("connecting", settings):
            options = {**client_options(settings), "acks": "all", "max_request_size": CONTROL_BYTES}
            self._producer = connected(KafkaProducer, options)

    def send(self, topic: str, records: Iterable[tuple[str, Any]]) -> None:
        """Write `(key, JSON value)` records and wait for the broker; None as a value is a tombstone."""
        with reached(f"writing to {topic}", self.settings):
            futures = [
                self._producer.send(
                    topic, key=key.encode(), value=None if value is None else msgspec.json.encode(value)
                )
                for key, value in records
            ]
            for future in futures:
                future.get(timeout=self.settings.request_timeout_seconds)

    def close(self) -> None:
        """Flush and release the connection."""
        with reached("closing a producer", self.settings):
            self._producer.close(timeout=self.settings.request_timeout_seconds)
