"""`keys create|list|revoke`: who may ask the service for what. A running service follows within about a second."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stream_trainer.api_keys import SCOPES, Key, change_keys, lifetime_hours, make_key, read_keys
from stream_trainer.commands.output import AsJson, print_json, print_table
from stream_trainer.errors import UsageError
from stream_trainer.settings import Settings

app = typer.Typer(no_args_is_help=True, help="API keys of the service: create, list and revoke them.")

File = Annotated[
    Path | None,
    typer.Option("--file", help="The file of keys.", show_default="the setting serving.keys_file"),
]


@app.command("create", epilog="Example: stream-trainer keys create web-shop --scope predict --expires 90d")
def create(
    name: Annotated[str, typer.Argument(help="Whom it is for; shown by `keys list` and in the log of decisions.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(SCOPES)}; repeat it for more. A key may do what it names, no more."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="90d|12h", help="Its lifetime.", show_default="until it is revoked")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second.", show_default="the setting serving.rate_per_second")
    ] = None,
    burst: Annotated[
        int | None, typer.Option(help="Requests at once.", show_default="the setting serving.rate_burst")
    ] = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, this once: the file keeps its SHA-256 only."""
    wanted = scope or ["predict"]
    unknown = set(wanted) - set(SCOPES)
    if unknown:
        raise UsageError(f"--scope {', '.join(sorted(unknown))}: use {', '.join(SCOPES)}")
    path = _path(file)
    now = datetime.now(UTC).replace(microsecond=0)
    until = now + timedelta(hours=lifetime_hours(expires)) if expires is not None else None
    scopes = [known for known in SCOPES if known in wanted]
    text, key = make_key(name, scopes, created=now, expires=until, rate=rate, burst=burst)
    change_keys(path, lambda keys: (*keys, key))
    if as_json:
        print_json({"key": text, **_shown(key, now)})
        return
    typer.echo(text)
    typer.echo(f"key {key.id} ({key.name}) was added to {path}; it is shown this once", err=True)


@app.command("list", epilog="Example: stream-trainer keys list --json")
def list_keys(file: File = None, as_json: AsJson = False) -> None:
    """List keys: id, name, scopes, when they were made and when they expire. Never a key."""
    keys, now = read_keys(_path(file)), datetime.now(UTC)
    if as_json:
        print_json([_shown(key, now) for key in keys])
        return
    rows = [
        (
            key.id,
            key.name,
            ", ".join(key.scopes),
            f"{key.created:%Y-%m-%d %H:%M}",
            "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}",
            "expired" if _expired(key, now) else "",
        )
        for key in keys
    ]
    print_table(("id", "name", "scopes", "created", "expires", ""), rows)


@app.command("revoke", epilog="Example: stream-trainer keys revoke 3f9a1c0b7d52")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="A key's id, as `keys list` shows it.")],
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Take a key away; a running service refuses it within about a second."""
    path = _path(file)
    read_keys(path)

    def without(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        left = tuple(key for key in keys if key.id != key_id)
        if len(left) == len(keys):
            raise UsageError(f"{path} has no key {key_id!r}: `stream-trainer keys list` shows which there are")
        return left

    left = change_keys(path, without)
    if as_json:
        print_json({"revoked": key_id, "left": len(left)})
    else:
        typer.echo(f"key {key_id} is revoked; {len(left)} left in {path}")


def _path(given: Path | None) -> Path:
    path = given or Settings().serving.keys_file
    if path is None:
        raise UsageError("no file of keys is configured: set STREAM_TRAINER_SERVING__KEYS_FILE, or use --file")
    return path


def _expired(key: Key, now: datetime) -> bool:
    return key.expires is not None and key.expires <= now


def _shown(key: Key, now: datetime) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(key)
    del fields["sha256"]
    return {**fields, "expired": _expired(key, now)}
