"""`actions list|ask`: what was asked of a pipeline's trainer and what became of it; and asking for something."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import typer

from stream_trainer.acting import Asked, action_of, id_of_person, parse
from stream_trainer.acts import Act
from stream_trainer.commands import connecting
from stream_trainer.commands.champion import who
from stream_trainer.commands.output import AsJson, PipelineAddress, print_json, print_table
from stream_trainer.errors import UsageError
from stream_trainer.kafka import Admin, ControlProducer, topic_plans
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import KafkaSettings, Settings
from stream_trainer.store import ModelStore, open_store

app = typer.Typer(no_args_is_help=True, help="What alerts and people ask of the trainer.")

Kind = Literal["raise-learning-rate", "hold-promotion", "roll-back", "warm-retrain", "release-promotion"]


@app.command("list", epilog="Example: stream-trainer actions list examples.flights.pipeline:pipeline")
def list_actions(pipeline: PipelineAddress, as_json: AsJson = False) -> None:
    """Show what was asked, oldest first, and whether it was done, refused (and why), or waits for the next micro-batch."""
    from stream_trainer.action_log import all_requests  # noqa: PLC0415 - torch comes with it

    settings = connecting.connect(Settings())
    found = load_pipeline(pipeline)
    _create(found.name, settings.kafka)
    store = open_store(settings, found.name)
    told = outcomes(all_requests(settings.kafka, found.topics.actions), store)
    if as_json:
        print_json(told)
        return
    if not told:
        typer.echo("nothing was asked")
        return
    rows = [
        (
            one["action_id"][:8],
            one["action"]["kind"],
            one["by"],
            one["asked_at"],
            one["outcome"],
            one["version"],
            one["why"],
        )
        for one in told
    ]
    print_table(("id", "action", "by", "asked at", "outcome", "version", "why"), rows)


@app.command("ask", epilog="Example: stream-trainer actions ask examples.flights.pipeline:pipeline hold-promotion")
def ask(
    pipeline: PipelineAddress,
    kind: Annotated[Kind, typer.Argument(help="What is asked.")],
    factor: Annotated[float | None, typer.Option(help="Of raise-learning-rate: how much longer steps are.")] = None,
    rows: Annotated[int | None, typer.Option(help="Of raise-learning-rate: for so many rows.")] = None,
    records: Annotated[int | None, typer.Option(help="Of warm-retrain: how many are learned again.")] = None,
    hold: Annotated[str | None, typer.Option(help="Of release-promotion: the id of the action that holds.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the action.")] = "",
    as_json: AsJson = False,
) -> None:
    """Ask the trainer for something; it is decided on before its next micro-batch, and `actions list` says what became of it."""
    given = {"factor": factor, "rows": rows, "records": records, "hold": hold}
    fields = {name: value for name, value in given.items() if value is not None}
    action = action_of({"kind": kind.replace("-", "_"), **fields})
    settings = connecting.connect(Settings())
    found = load_pipeline(pipeline)
    by, now = who(), datetime.now(UTC)
    asked = Asked(action_id=id_of_person(by, now, action), action=action, by=by, asked_at=now, reason=reason)
    if parse(asked.action_id.encode(), msgspec.json.encode(asked)) is None:
        raise UsageError("--reason: give one line without control characters, of at most 500")
    _create(found.name, settings.kafka)
    producer = ControlProducer(settings.kafka)
    try:
        producer.send(found.topics.actions, [(asked.action_id, asked)])
    finally:
        producer.close()
    if as_json:
        print_json(asked)
        return
    typer.echo(f"asked for {kind}, action {asked.action_id}")


def outcomes(requests: list[Asked], store: ModelStore) -> list[dict[str, Any]]:
    """Each request with what became of it, oldest first; those that only versions know of too."""
    decided = _decided(store)
    known = {request.action_id: request for request in requests}
    known |= {name: act.asked for name, (_, act) in decided.items() if name not in known}
    told = []
    for name, request in sorted(known.items(), key=lambda item: item[1].asked_at):
        version, act = decided.get(name, (None, None))
        outcome = "waits" if act is None else "done" if act.is_done else "refused"
        why = act.refused if act is not None and not act.is_done else ""
        told.append({**msgspec.to_builtins(request), "outcome": outcome, "version": version, "why": why or ""})
    return told


def _decided(store: ModelStore) -> dict[str, tuple[int, Act]]:
    from stream_trainer.planning import acting_versions  # noqa: PLC0415 - who only asks does not pay for torch

    versions = acting_versions(store, store.head())
    return {
        act.asked.action_id: (version.number, act)
        for version in versions
        for cut in version.manifest.acts
        for act in cut.acts
    }


def _create(pipeline: str, settings: KafkaSettings) -> None:
    with Admin(settings) as admin:
        admin.create_missing([topic_plans(pipeline, settings)["actions"]])
