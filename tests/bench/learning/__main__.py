"""`python -m tests.bench.learning [--data FOLDER] [--quick] [--report docs/learning-benchmarks.md]`; resumes by itself."""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from stream_trainer.errors import UsageError
from stream_trainer.settings import Settings
from tests.bench.learning import catalogue, contestants, document, panels, plan, results, running, syncing
from tests.bench.learning.contestants import OURS, Contestant
from tests.bench.learning.options import Options, parse
from tests.bench.learning.plan import Plan, Slot
from tests.bench.learning.results import Results
from tests.bench.learning.running import Processes
from tests.bench.learning.stream import Stream
from tests.bench.peers import environments

_PEERS = "tests.bench.learning.peers"
_SYNCS = Contestant(name="syncs", what="", module="tests.bench.learning.syncing", row_by_row=False)


def main(argv: Sequence[str]) -> int:
    """Fill what is missing, then write the report; 2 when something is missing for it, 1 when a learner failed.

    130 after Ctrl-C, with everything ended that was started; what was measured is kept.
    """
    options = parse(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console()
    try:
        return _measure(options, console)
    except UsageError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("interrupted; run it again to go on")
        return 130


def _measure(options: Options, console: Console) -> int:
    cache = Settings().cache_dir
    homes = {name: environments.ensure(name, cache, own_torch=True) for name in ("river", "deep_river", "plots")}
    processes, folder = Processes(homes=homes), cache / "bench" / "learning"
    streams, files = _streams(options, processes, folder)
    who = [c for c in contestants.ALL if options.learners is None or c.name in options.learners]
    slots = plan.slots(streams, who, options.sizes, options.lengths.single, folder / "cells")
    syncs = _sync_slots(streams, folder / "cells") if OURS in {c.name for c in who} else []
    jobs = Plan(slots=[*slots, *syncs], files=files, limit=options.limit).jobs()
    console.print(f"{len(slots)} cells of {len(streams)} streams; {len(jobs)} jobs to do", style="dim")
    failed = running.run_all(jobs, processes, options.jobs, lambda line: console.print(line, style="dim", markup=False))
    for line in failed:
        console.print(f"failed: {line}", markup=False, soft_wrap=True)
    heads = {stream.name: results.head_of(stream) for stream in streams.values()}
    found, synced = results.collect(slots, heads), results.collect(syncs, heads)
    if options.report is not None:
        _report(options, processes, found, synced, failed)
        console.print(f"written: {options.report}")
    return 1 if failed else 0


def _streams(
    options: Options, processes: Processes, folder: Path
) -> tuple[dict[tuple[str, int], Stream], Mapping[tuple[str, int], Path]]:
    wanted = catalogue.sources(options.data)
    if options.streams is not None:
        if wrong := set(options.streams) - {source.name for source in wanted}:
            raise UsageError(f"no stream {', '.join(sorted(wrong))}; there are {', '.join(s.name for s in wanted)}")
        wanted = [source for source in wanted if source.name in options.streams]

    def river(wishes: Path) -> None:
        processes.python("river", f"{_PEERS}.river_streams", wishes)

    files = catalogue.prepare(wanted, options.seeds, options.lengths, folder, river)
    return {key: Stream.load(path) for key, path in files.items()}, files


def _sync_slots(streams: Mapping[tuple[str, int], Stream], cells: Path) -> list[Slot]:
    chosen = {key: stream for key, stream in streams.items() if key[0] in syncing.STREAMS}
    found = []
    for (name, seed), stream in chosen.items():
        code = f"{contestants.digest(contestants.ALL[0], stream)}{contestants.code_of(Path(syncing.__file__))}"
        for shards in syncing.SHARDS:
            key = plan.key(stream.digest, code, shards, seed)
            path = cells / name / f"syncs-{shards}-{seed}-{key}.json"
            rows = stream.rows - syncing.tail(stream.rows)
            found.append(Slot(stream=name, contestant=_SYNCS, size=shards, seed=seed, rows=rows, path=path))
    return found


def _report(options: Options, processes: Processes, found: Results, synced: Results, failed: Sequence[str]) -> None:
    assert options.report is not None
    syncs = {(stream, shards): cells for (stream, _, shards), cells in synced.cells.items()}
    size = document.PLOTTED if document.PLOTTED in found.sizes else found.sizes[-1]
    drawn = {
        document.OVER_TIME: _draw(options.report, document.OVER_TIME, panels.over_time(found, size, OURS), processes),
        document.SYNCS: _draw(options.report, document.SYNCS, panels.of_syncs(syncs), processes),
    }
    versions = {name: environments.versions(programs) for name, programs in processes.homes.items()}
    document.write(options, found, syncs, versions, failed, drawn)


def _draw(report: Path, name: str, drawn: list[dict[str, Any]], processes: Processes) -> bool:
    """Whether there was anything to draw."""
    if not drawn:
        return False
    path = document.image(report, name)
    plot = path.with_suffix(".json")
    plot.write_text(json.dumps({"path": str(path), "columns": 3, "panels": drawn}))
    try:
        processes.python("plots", f"{_PEERS}.plots", plot)
    finally:
        plot.unlink()
    return True


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
