"""`stream-trainer demo`: a broker, a trainer with its monitor and joiner, the service and the replayer, supervised on one machine."""

import logging
import shutil
import socket
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.live import Live

from infra import broker, demo_view
from infra.demo_facts import Facts, Tail
from infra.demo_keys import Lent, lent_key
from infra.filelock import exclusive
from infra.local import start_local_broker
from infra.supervisor import Supervisor, Unit
from infra.units import serve_unit, train_unit, variables
from stream_trainer.errors import UsageError
from stream_trainer.kafka import Admin, topic_plans
from stream_trainer.settings import KafkaSettings, Settings, StoreSettings, environment, exported

PIPELINE = "examples.flights.pipeline:pipeline"
NAME = "flights"
_MARKER = ".stream-trainer-demo"
_TICK = 0.5
_LINE_EVERY = 5.0
_PLAIN_WIDTH = 140
_FLIGHTS_A_DAY = 922
_PAGE_PORT = 8002
# A first batch costs most for what is new in it, and waits for all that came while Spark started: a small one is out
# sooner. Each state partition is one more store, worker and task in every batch, on two cores.
_SMALL_JOINER = {"STREAM_TRAINER_JOIN__MAX_RECORDS_PER_BATCH": "4000", "STREAM_TRAINER_JOIN__STATE_PARTITIONS": "1"}
# JVMs that live for minutes: what the second compiler would gain, its work costs first. Without it and with one state
# partition it took 49 seconds of CPU until something was learned, instead of 75.
_JVM = "-XX:TieredStopAtLevel=1"

logger = logging.getLogger(__name__)


class Demo:
    """One run of the demo in a folder of its own, which each run empties at its start and leaves for a look."""

    def __init__(self, settings: Settings, folder: Path, *, rate: float, port: int) -> None:
        self._folder = folder.absolute()
        self._settings = settings.model_copy(
            update={"data_dir": self._folder, "store": StoreSettings(), "kafka": KafkaSettings()}
        )
        self._rate = rate
        self._port = _free_port(port)
        self._page_port = _free_port(_PAGE_PORT)
        self._console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
        self._messages: list[str] = []
        self._started_at = time.time()

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://127.0.0.1:{self._port}"

    def run(self, seconds: float | None, stop: threading.Event) -> int:
        """Until `seconds` are over or `stop` is set; 0 when what the summary claims is so.

        Raises:
            UsageError: the folder holds something else, or another demo uses it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self._folder.with_name(self._folder.name + ".lock"), wait_seconds=0):
            self._prepare_folder()
            with lent_key(self._settings.serving.keys_file, self._folder / "keys.json", datetime.now(UTC)) as lent:
                tail, alive = self._show(lent, seconds, stop)
        return self._conclude(tail, alive=alive)

    def _show(self, lent: Lent, seconds: float | None, stop: threading.Event) -> tuple[Tail, bool]:
        """Everything started, watched and ended; what was seen, and whether all of it lived."""
        settings = self._start_broker()
        tail = Tail(settings, NAME)
        supervisor = Supervisor(self._units(settings, tail, lent), self._messages.append)
        try:
            supervisor.start()
            tail.start()
            alive = self._watch(tail, supervisor, seconds, stop)
        finally:
            self._say("draining: replayer, service, trainer, broker")
            supervisor.drain()
            tail.stop()
            broker.stop(settings.broker_dir)
        return tail, alive

    def _prepare_folder(self) -> None:
        there = list(self._folder.iterdir())
        if there and not (self._folder / _MARKER).exists():
            raise UsageError(f"{self._folder} holds something else than a demo: name another folder with --data-dir")
        if broker.status(self._settings.broker_dir) is not None:
            broker.stop(self._settings.broker_dir)
        for path in there:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self._folder / _MARKER).touch()

    def _start_broker(self) -> Settings:
        self._say("starting Kafka")
        with exported(_short_lived()):
            info = start_local_broker(self._settings, detach=False)
        kafka = KafkaSettings(bootstrap_servers=info.bootstrap_servers)
        with Admin(kafka) as admin:
            admin.create_missing(topic_plans(NAME, kafka, joined=True).values())
        self._say(f"Kafka at {info.bootstrap_servers}; starting Spark, the service and the flights of 2013")
        self._say(f"the monitor's dashboard: http://127.0.0.1:{self._page_port}/")
        return self._settings.model_copy(update={"kafka": kafka})

    def _units(self, settings: Settings, tail: Tail, lent: Lent) -> list[Unit]:
        logs = self._folder / "logs"
        page = {"STREAM_TRAINER_MONITOR__PAGE_PORT": str(self._page_port)}
        more = {**_SMALL_JOINER, **_short_lived(), **page}

        def replay_arguments() -> list[str]:
            speed = self._rate * 86_400 / _FLIGHTS_A_DAY
            return ["--predict-url", f"{self.url}/predict", "--speed", str(speed), "--start", _next_day(tail.facts)]

        replay = Unit(
            name="replayer",
            module="examples.flights.replay",
            arguments=replay_arguments,
            variables={**variables(settings), **lent.replayer},
            log=logs / "replayer.log",
        )
        return [
            train_unit(PIPELINE, settings, logs / "trainer.log", more, joined=True),
            serve_unit(PIPELINE, settings, self._port, logs / "serving.log", admin_port=0, more=lent.serving),
            replay,
        ]

    def _watch(self, tail: Tail, supervisor: Supervisor, seconds: float | None, stop: threading.Event) -> bool:
        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False) as live:
                return self._loop(tail, supervisor, seconds, stop, live)
        return self._loop(tail, supervisor, seconds, stop, None)

    def _loop(
        self, tail: Tail, supervisor: Supervisor, seconds: float | None, stop: threading.Event, live: Live | None
    ) -> bool:
        said_at = 0.0
        while not stop.wait(_TICK):
            alive = supervisor.look()
            elapsed = time.time() - self._started_at
            message = self._messages[-1] if self._messages else ""
            if live is not None:
                live.update(demo_view.panel(tail.facts, self.url, message, elapsed), refresh=True)
            elif elapsed - said_at >= _LINE_EVERY:
                said_at = elapsed
                self._say(demo_view.line(tail.facts, elapsed))
                while self._messages:
                    self._say(self._messages.pop(0))
            if not alive:
                self._say(message)
                return False
            if seconds is not None and elapsed >= seconds:
                return True
        return True

    def _conclude(self, tail: Tail, *, alive: bool) -> int:
        facts = tail.facts
        first = min(facts.first_served.values(), default=None)
        since = first - datetime.fromtimestamp(self._started_at, first.tzinfo) if first else None
        self._console.print(demo_view.summary(facts, self.url, since.total_seconds() if since else None))
        self._say(f"logs, models and reports: {self._folder}")
        self._say(f"look closer: STREAM_TRAINER_DATA_DIR={self._folder} stream-trainer models list {PIPELINE}")
        return 0 if alive and demo_view.judge(facts).passed else 1

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _next_day(facts: Facts) -> str:
    """Where the replayer begins: the first day of 2013, and after a death the day after what was learned."""
    through = facts.head.manifest.trained_through if facts.head else None
    return f"{through + timedelta(days=1):%Y-%m-%d}" if through else "2013-01-01"


def _short_lived() -> dict[str, str]:
    """What Java is told, after what the user tells it anyway."""
    return {"JAVA_TOOL_OPTIONS": f"{environment().get('JAVA_TOOL_OPTIONS', '')} {_JVM}".strip()}


def _free_port(wanted: int) -> int:
    """The wanted port, or any free one when it is taken."""
    for port in (wanted, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as probe:
                return int(probe.getsockname()[1])
        except OSError:
            continue
    raise UsageError("no free port on 127.0.0.1")
