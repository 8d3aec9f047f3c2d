"""The files of a local broker's folder: its configuration, its log settings, and the state file that finds it again.

folder/broker.json         which process runs here and on which ports
folder/server.properties   written anew at each start
folder/log4j2.properties
folder/data/               Kafka's own; formatted beside its place and renamed, so never half there
folder/logs/               broker.log (rolled over) and console.log (what the JVM says)
"""

import contextlib
import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from stream_trainer.errors import SetupError, UsageError

MAX_MESSAGE_BYTES = 16 * 2**20
_CREATED_TOLERANCE_SECONDS = 2.0  # process start times are kept in clock ticks

_SERVER = """\
# Written by stream-trainer at each start; changes here are lost.
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}

auto.create.topics.enable=false
message.max.bytes={max_bytes}
replica.fetch.max.bytes={max_bytes}

# One node: nothing to replicate to, nobody to wait for.
default.replication.factor=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# After a crash the next start waits until the dead broker's registration has run out.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000

# A laptop, not a server.
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1
log.cleaner.dedupe.buffer.size=16777216
log.segment.delete.delay.ms=500
log.initial.task.delay.ms=500
"""

_LOG4J2 = """\
# Written by stream-trainer at each start; changes here are lost.
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={logs}/broker.log
appender.file.filePattern={logs}/broker.log.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{{yyyy-MM-dd'T'HH:mm:ss.SSSX}}{{UTC}} %-5p %c{{1}}: %m%n
appender.file.policies.type=SizeBasedTriggeringPolicy
appender.file.policies.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=3
rootLogger.level=INFO
rootLogger.appenderRef.file.ref=file
logger.config.name=org.apache.kafka.common.config.AbstractConfig
logger.config.level=WARN
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerInfo:
    """A running local broker; `started_at` is in epoch seconds."""

    bootstrap_servers: str
    pid: int
    folder: Path
    port: int
    started_at: float
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What `broker.json` holds. It stays after a stop (pid None), so that a restart asks for the same ports."""

    port: int
    controller_port: int
    pid: int | None = None
    created: float = 0.0


def read_state(folder: Path) -> State | None:
    """The folder's state; None when there is none or a crash tore it (it can be rebuilt: only ports are lost)."""
    try:
        return State(**json.loads((folder / "broker.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_state(folder: Path, state: State) -> None:
    """Replace the state file in one step."""
    draft = folder / "broker.json.new"
    draft.write_text(json.dumps(asdict(state)) + "\n")
    draft.replace(folder / "broker.json")


def running_process(folder: Path, state: State | None) -> psutil.Process | None:
    """The process that the state names, if it lives, started when the state says, and is Kafka on this very folder."""
    if state is None or state.pid is None:
        return None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(state.pid)
        same_start = abs(process.create_time() - state.created) <= _CREATED_TOLERANCE_SECONDS
        alive = process.status() != psutil.STATUS_ZOMBIE
        ours = process.cmdline()[-2:] == ["kafka.Kafka", str(folder / "server.properties")]
        return process if same_start and alive and ours else None
    return None


def info(folder: Path, state: State) -> BrokerInfo:
    """What the outside is told about a running broker."""
    if state.pid is None:
        raise ValueError("a state without a process has no BrokerInfo")
    return BrokerInfo(
        bootstrap_servers=f"127.0.0.1:{state.port}",
        pid=state.pid,
        folder=folder,
        port=state.port,
        started_at=state.created,
        log=folder / "logs" / "broker.log",
    )


def choose_ports(before: State | None) -> State:
    """Two free loopback ports: those of the last run if they are still free."""
    with contextlib.ExitStack() as held:  # both at once, so that they differ
        port = held.enter_context(_bound(before.port if before else 0))
        controller = held.enter_context(_bound(before.controller_port if before else 0))
        return State(port=port.getsockname()[1], controller_port=controller.getsockname()[1])


def _bound(preferred: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does: TIME_WAIT is no obstacle
    try:
        listener.bind(("127.0.0.1", preferred))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    return listener


def write_configuration(folder: Path, state: State, *, data: Path) -> Path:
    """Write both configuration files; returns the path of `server.properties`."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    server = folder / "server.properties"
    server.write_text(
        _SERVER.format(
            port=state.port,
            controller_port=state.controller_port,
            data=str(data).replace("\\", "\\\\"),
            max_bytes=MAX_MESSAGE_BYTES,
        )
    )
    (folder / "log4j2.properties").write_text(_LOG4J2.format(logs=logs))
    return server


def check_folder(folder: Path) -> bool:
    """Whether the folder's Kafka data is formatted and usable; False: not formatted yet.

    Raises:
        UsageError: Kafka cannot use such a path.
        SetupError: there is data without the file that identifies it; it is left as it is.
    """
    if "," in str(folder):
        raise UsageError(f"{folder}: Kafka reads a comma in its data folder as two folders; choose another --data-dir")
    data = folder / "data"
    if (data / "meta.properties").is_file():
        return True
    if data.is_dir() and any(data.iterdir()):
        raise SetupError(
            f"{data} holds files but no meta.properties, so it is not a whole Kafka data folder. It was left untouched:"
            " move it away (or delete it, if its records are not needed) and start again, or choose another --data-dir"
        )
    return False
