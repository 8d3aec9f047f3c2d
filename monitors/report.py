"""A report as a process of its own: `python -m monitors.report --current … --reference … --evidence … --out …`.

It takes seconds of CPU and hundreds of megabytes, so it is niced, works on bounded samples, and kills itself when it takes
too long. What it writes is Evidently's; see `monitors.snapshots`. A workspace that cannot be written costs no report.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from monitors.evidence import Evidence, decoded
from stream_trainer.reference import table_from_bytes


def write_report(
    current: pa.Table, reference: pa.Table, evidence: Evidence, out: Path, workspace: Path | None = None
) -> None:
    """Write the HTML file, and then the snapshot into the workspace.

    Raises:
        ValueError: there is nothing to report.
    """
    # Imported late: it takes seconds, which the timeout is to cover.
    from monitors.snapshots import add_to_workspace, snapshot_of  # noqa: PLC0415

    snapshot = snapshot_of(current, reference, evidence)
    partial = out.with_suffix(".partial")
    snapshot.save_html(str(partial))
    partial.replace(out)
    if workspace is None:
        return
    try:
        add_to_workspace(snapshot, evidence, workspace)
    except Exception as error:  # noqa: BLE001 - the report is there
        sys.stderr.write(f"not in the workspace: {type(error).__name__}: {error}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one report; 0 when it is there."""
    parser = argparse.ArgumentParser(prog="python -m monitors.report", description=__doc__)
    for name in ("--current", "--reference", "--evidence", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--workspace", type=Path, help="a local workspace of Evidently; none without")
    parser.add_argument("--timeout", type=int, default=120, help="seconds")
    given = parser.parse_args(arguments)
    os.nice(10)
    signal.alarm(given.timeout)
    current, reference = (table_from_bytes(path.read_bytes()) for path in (given.current, given.reference))
    try:
        write_report(current, reference, decoded(given.evidence.read_bytes()), given.out, given.workspace)
    except ValueError as error:
        sys.stderr.write(f"no report: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
