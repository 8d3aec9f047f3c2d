"""`models list|show|verify|report`: look at the versions of a pipeline; the commands that change something stand beside."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer

from stream_trainer.commands import challenger, champion
from stream_trainer.commands.garbage import gc
from stream_trainer.commands.output import AsJson, PipelineAddress, print_json, print_table
from stream_trainer.commands.report import report
from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, Version, open_store

app = typer.Typer(no_args_is_help=True, help="Look at the versions of a pipeline, and decide which one serves.")
champion.add_to(app)
challenger.add_to(app)
app.command("gc", epilog="Example: stream-trainer models gc examples.flights.pipeline:pipeline --dry-run")(gc)
app.command("report", epilog="Example: stream-trainer models report examples.flights.pipeline:pipeline --out report")(
    report
)

_BASELINES = ("no_change", "majority")

Number = Annotated[int | None, typer.Argument(metavar="VERSION", help="A version's number; the newest without.")]


def _store(address: str) -> ModelStore:
    return open_store(Settings(), load_pipeline(address).name)


def _described(version: Version, roles: dict[int, str]) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(version.manifest, str_keys=True)
    return {**fields, "manifest_sha256": version.sha256, "role": roles.get(version.number)}


@app.command("list", epilog="Example: stream-trainer models list examples.flights.pipeline:pipeline --last 5")
def list_versions(
    pipeline: PipelineAddress,
    last: Annotated[int, typer.Option(help="Only the newest so many; 0 for all.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """List versions, oldest first; with --json one object a version with the manifest's fields and its role, all of them."""
    store = _store(pipeline)
    numbers = store.numbers()
    versions = []
    for number in numbers if as_json or not last else numbers[-last:]:
        try:
            versions.append(store.read(number))
        except (Corrupt, NoVersion) as error:
            typer.echo(f"version {number}: {error}", err=True)
    roles = challenger.roles(store)
    if as_json:
        print_json([_described(v, roles) for v in versions])
        return
    if not numbers:
        typer.echo(f"{store.describe()} has no versions yet: `stream-trainer train {pipeline}` makes them")
        return
    columns = _columns(versions[-1].manifest.metrics) if versions else []
    rows = [
        (
            v.number,
            f"{v.manifest.created_at:%m-%d %H:%M:%S}",
            v.manifest.rows.trained,
            v.manifest.rows.rejected,
            v.manifest.total.trained,
            f"{v.manifest.trained_through:%Y-%m-%d %H:%M}" if v.manifest.trained_through else None,
            *(_score(v.manifest.metrics, *column) for column in columns),
            "" if v.manifest.passed else "failed",
            roles.get(v.number),
        )
        for v in versions
    ]
    scores = [(of or name).replace("_", " ") for of, name in columns]
    print_table(
        ("version", "created", "trained", "rejected", "total", "trained through", *scores, "gates", "role"), rows
    )


def _columns(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Forecaster (empty: the model) and score: all of the model's, and beside its loss, the first, that of both baselines."""
    from stream_trainer.evaluation.series import METRICS  # noqa: PLC0415

    own = [("", name) for name in METRICS if isinstance(metrics.get(name), float)]
    return own[:1] + [(of, name) for of in _BASELINES for _, name in own[:1] if name in metrics.get(of, {})] + own[1:]


def _score(metrics: Mapping[str, Any], of: str, name: str) -> str | None:
    value = (metrics.get(of, {}) if of else metrics).get(name)
    return f"{value:.3f}" if isinstance(value, float) else None


@app.command("show", epilog="Example: stream-trainer models show examples.flights.pipeline:pipeline 42")
def show(pipeline: PipelineAddress, version: Number = None, as_json: AsJson = False) -> None:
    """Show the manifest of a version and its role: what it has learned from, and how it was made."""
    store = _store(pipeline)
    number = version if version is not None else store.highest()
    if number == 0:
        raise NoVersion(f"{store.describe()} has no versions yet")
    found = _described(store.read(number), challenger.roles(store))
    if as_json:
        print_json(found)
    else:
        print_table(("field", "value"), [(name, _short(value)) for name, value in found.items()])


def _short(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


@app.command("verify", epilog="Example: stream-trainer models verify examples.flights.pipeline:pipeline")
def verify(pipeline: PipelineAddress, version: Number = None, as_json: AsJson = False) -> None:
    """Read every file of one version, or of all, and compare sizes and SHA-256; exit code 5 when one differs."""
    store = _store(pipeline)
    asked = version is not None
    found = [_verified(store, number, asked) for number in ([version] if version is not None else store.numbers())]
    damaged = [row for row in found if not row["ok"]]
    if as_json:
        print_json(found)
    else:
        for row in damaged:
            typer.echo(f"version {row['version']}: {row['problem']}")
        pruned = sum(row["pruned"] for row in found)
        kept = f", {pruned} of them without data, which retention has deleted" if pruned else ""
        typer.echo(f"{len(found) - len(damaged)} of {len(found)} versions are what was committed{kept}")
    if damaged:
        raise typer.Exit(5)


def _verified(store: ModelStore, number: int, asked: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"version": number, "ok": True, "pruned": False, "sha256": None, "problem": None}
    try:
        if store.pruned(number):
            return {**row, "sha256": store.read(number).sha256, "pruned": True}
        return {**row, "sha256": store.verify(number).sha256}
    except NoVersion as error:
        if asked:
            raise
        return {**row, "ok": False, "problem": str(error)}
    except Corrupt as error:
        return {**row, "ok": False, "problem": str(error)}
