"""`models gc`: delete from the store what nobody needs any more."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from stream_trainer.commands.output import AsJson, PipelineAddress, print_json, print_table
from stream_trainer.errors import Corrupt, NoVersion, StoreDamaged
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import garbage, open_store


def gc(
    pipeline: PipelineAddress,
    grace: Annotated[
        float,
        typer.Option(metavar="HOURS", help="Leave alone what was written since; 0 only while nothing runs.", min=0),
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, delete nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what crashes left behind, and the data of versions that the settings let go of; safe while others run.

    Manifests stay for ever, and so does the data of the head, of the newest two versions, and of whatever is champion
    or named by an alias.
    """
    settings = Settings()
    store = open_store(settings, load_pipeline(pipeline).name)
    try:
        found = garbage.find(store, settings.store, older_than=garbage.past(datetime.now(UTC), grace))
        if not dry_run:
            garbage.collect(store, found)
    except (Corrupt, NoVersion) as error:
        raise StoreDamaged(
            f"{error}; nothing was deleted: `stream-trainer models pin` or `promote` a good version first"
        ) from error
    rows = [
        (kind, len(items), sum(item.size for item in items), garbage.KINDS[kind])
        for kind, items in found.by_kind().items()
    ]
    if as_json:
        kinds = {kind: {"objects": count, "bytes": size} for kind, count, size, _ in rows}
        print_json({"dry_run": dry_run, "versions": sorted(found.versions), "kinds": kinds})
        return
    verb = "would delete" if dry_run else "deleted"
    total = sum(count for _, count, _, _ in rows)
    if not total:
        typer.echo(f"nothing to delete in {store.describe()}")
        return
    typer.echo(f"{verb} {total} objects, {sum(size for _, _, size, _ in rows):,} bytes, from {store.describe()}")
    print_table(("objects", "bytes", "what"), [(count, f"{size:,}", what) for _, count, size, what in rows if count])
