"""The command that replays 2013 against a running service: a process of its own, with HTTP and Kafka only.

    python -m examples.flights.replay --bootstrap-servers 127.0.0.1:9092 --for 60

Ends with the year, after `--for` seconds, or drained on SIGTERM and Ctrl-C; its last line is a JSON summary. A service
that asks for keys gets the one in STREAM_TRAINER_API_KEY.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pyarrow as pa
from confluent_kafka import KafkaException
from confluent_kafka import Producer as KafkaProducer

from examples.flights.client import TIMEOUT, PredictClient
from examples.flights.data import Timeline, load_timeline
from examples.flights.replayer import MAX_IN_FLIGHT, MAX_STEP_SECONDS, Producer, Replayer
from examples.flights.schedule import Schedule, SimulatedClock
from stream_trainer.api_keys import VARIABLE
from stream_trainer.errors import BrokerUnavailable, StreamTrainerError, UsageError
from stream_trainer.kafka import librdkafka_options
from stream_trainer.settings import KafkaSettings, Settings, environment

# 336,776 flights in 365 days make 922 a day; at this speed about 500 a second depart.
DEFAULT_SPEED = 500 * 86_400 / 922
PROGRESS_SECONDS = 5.0
QUEUE_RECORDS = 20_000

log = logging.getLogger("flights.replay")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields given as `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = getattr(record, "fields", {})
        return json.dumps({"at": at, "level": record.levelname.lower(), "event": record.getMessage(), **fields})


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m examples.flights.replay", description=__doc__.splitlines()[0])
    parser.add_argument("--predict-url", default="http://127.0.0.1:8000/predict", help="default: %(default)s")
    parser.add_argument("--bootstrap-servers", help="HOST:PORT[,…]; default: from the settings")
    parser.add_argument("--topic", default="flights.labels", help="default: %(default)s")
    parser.add_argument("--speed", type=_positive, default=DEFAULT_SPEED, help="simulated seconds a real one")
    parser.add_argument("--start", type=_day, default="2013-01-01", help="first day (UTC), default: %(default)s")
    parser.add_argument("--for", dest="seconds", type=_positive, help="real seconds after which to drain and end")
    parser.add_argument("--max-flights", type=_count, help="ask for so many flights, wait for their landings, and end")
    return parser.parse_args(argv)


def producer_options(settings: KafkaSettings) -> dict[str, str | int | float | bool]:
    """Nothing lost, nothing twice, the same partition as Java would choose, and a queue with an end."""
    return {
        **librdkafka_options(settings),
        "partitioner": "murmur2_random",
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 10,
        "queue.buffering.max.messages": QUEUE_RECORDS,
    }


async def replay(flags: argparse.Namespace, timeline: Timeline, producer: Producer) -> Replayer:
    """Walk until the end, `--for`, or a signal."""
    schedule = Schedule(timeline.scheduled_at, timeline.landed_at, start=flags.start, max_flights=flags.max_flights)
    real = time.monotonic
    clock = SimulatedClock(start=flags.start, speed=flags.speed, max_step=MAX_STEP_SECONDS, real=real())
    limits = httpx.Limits(max_connections=MAX_IN_FLIGHT, max_keepalive_connections=MAX_IN_FLIGHT)
    key = environment().get(VARIABLE)
    headers = {"x-api-key": key} if key else {}
    async with httpx.AsyncClient(timeout=TIMEOUT, limits=limits, headers=headers, trust_env=False) as http:
        client = PredictClient(http, flags.predict_url, stopping=lambda: replayer.stopping)
        replayer = Replayer(timeline, schedule, clock, client, producer, topic=flags.topic, real=real)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, replayer.stop)
        timer = loop.call_later(flags.seconds, replayer.stop) if flags.seconds else None
        progress = asyncio.create_task(_report(replayer, clock))
        try:
            await replayer.run()
        finally:
            progress.cancel()
            if timer:
                timer.cancel()
    return replayer


def main(argv: Sequence[str] | None = None, *, connect: Callable[[KafkaSettings, str], Producer] | None = None) -> int:
    """Run the command; 0 when every label written was delivered."""
    flags = parse(argv)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        kafka = Settings().kafka
        if flags.bootstrap_servers:
            kafka = kafka.model_copy(update={"bootstrap_servers": flags.bootstrap_servers})
        producer = (connect or _connect)(kafka, flags.topic)
        timeline = load_timeline()
        pa.default_memory_pool().release_unused()
        replayer = asyncio.run(replay(flags, timeline, producer))
    except StreamTrainerError as error:
        log.error(str(error))  # noqa: TRY400 - the message says what to do, a traceback does not
        return error.exit_code
    sys.stdout.write(json.dumps(replayer.status()) + "\n")
    return 1 if replayer.counts.undelivered else 0


async def _report(replayer: Replayer, clock: SimulatedClock) -> None:
    slowed = 0.0
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        log.info("progress", extra={"fields": replayer.status()})
        if clock.slowed_seconds - slowed > 0.1 * PROGRESS_SECONDS:
            log.warning("simulated time was slowed down: the service or Kafka does not keep up with --speed")
        slowed = clock.slowed_seconds


def _connect(settings: KafkaSettings, topic: str) -> Producer:
    """A producer, once the broker has answered and has the topic: otherwise every label would be lost at the end."""
    if settings.bootstrap_servers is None:
        raise UsageError("no Kafka is configured: give --bootstrap-servers HOST:PORT")
    producer = KafkaProducer(producer_options(settings))
    servers = settings.bootstrap_servers
    try:
        known = producer.list_topics(timeout=settings.request_timeout_seconds).topics
    except KafkaException as error:
        raise BrokerUnavailable(f"no answer from Kafka at {servers}: {error}; is the broker up?") from error
    if topic not in known:
        raise UsageError(
            f"topic {topic} does not exist at {servers}: start the trainer or the service first, they create it"
        )
    connected: Producer = producer
    return connected


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _day(text: str) -> float:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2013-01-01") from error


if __name__ == "__main__":
    sys.exit(main())
