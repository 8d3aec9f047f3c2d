"""Starts `monitors.report` for alerts that opened, one process at a time, and keeps the newest reports.

A report that fails, or takes too long, costs its report and nothing else.
"""

import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from monitors.alerts import Alert
from monitors.content import PRIORITY
from monitors.evidence import Evidence, encoded, scores_for_report
from monitors.findings import Finding
from monitors.sampled import sample_of
from stream_trainer.reference import Reference, table_to_bytes
from stream_trainer.settings import environment

KEPT_REPORTS = 50
TIMEOUT_SECONDS = 120
_MAX_WAITING = 4
_READABLE = 100
_QUIET = {"DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A report to write: for which alerts (key and when it opened), into which file, from what.

    `current` and `reference` are Arrow files; `workspace` is a folder of Evidently's, None for none.
    """

    alerts: tuple[tuple[str, datetime], ...]
    out: Path
    current: bytes
    reference: bytes
    evidence: Evidence
    workspace: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A report process that ended; `detail` says why when the file is not there."""

    job: Job
    written: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    work: Path


def report_job(
    folder: Path,
    opened: Sequence[Alert],
    sample: pa.Table,
    reference: Reference,
    rows: int,
    *,
    findings: Iterable[Finding] = (),
    workspace: Path | None = None,
) -> Job:
    """One report for all alerts that opened with the same window, named after the first of them.

    Args:
        folder: of the HTML files.
        opened: the alerts, at least one.
        sample: rows of the window, with their priority.
        reference: holds the sample that they are compared with.
        rows: at most so many of each.
        findings: all of the round: their scores go into the report.
        workspace: see `Job`.
    """
    first = opened[0]
    return Job(
        alerts=tuple((alert.alert_key, alert.opened_at) for alert in opened),
        out=folder / _name(first),
        current=table_to_bytes(sample.drop_columns([PRIORITY]).slice(0, rows)),
        reference=table_to_bytes(sample_of(reference, rows)),
        evidence=Evidence(
            pipeline=first.pipeline,
            end=first.window.end,
            version=first.model_version,
            alerts=[alert.alert_key for alert in opened],
            scores=scores_for_report(findings),
        ),
        workspace=workspace,
    )


def _name(alert: Alert) -> str:
    """Of a file that any file system takes and the page shows, and of no other alert: keys hold what data holds."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", alert.alert_key)[:_READABLE].strip("-")
    digest = hashlib.sha256(alert.alert_key.encode(errors="replace")).hexdigest()[:12]
    return f"{readable}-{alert.opened_at:%Y%m%dT%H%M%S}-{digest}.html"


class Reports:
    """At most one report process; a few more jobs may wait, the oldest gives way."""

    def __init__(self, *, timeout_seconds: int = TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._waiting: deque[Job] = deque(maxlen=_MAX_WAITING)
        self._running: _Running | None = None

    def ask(self, job: Job) -> None:
        """Write this report soon."""
        self._waiting.append(job)
        self._start_next()

    def finished(self) -> Outcome | None:
        """The report that ended since the last call, if any; never waits."""
        if self._running is None or self._running.process.poll() is None:
            return None
        outcome = self._end(self._running)
        self._start_next()
        return outcome

    def wait(self, seconds: float) -> Outcome | None:
        """Like `finished`, but wait so long for it."""
        if self._running is not None:
            try:
                self._running.process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
        return self.finished()

    def close(self) -> None:
        """End what runs and forget what waits."""
        self._waiting.clear()
        if self._running is not None:
            self._running.process.kill()
            self._running.process.wait()
            self._end(self._running)

    def _start_next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        job = self._waiting.popleft()
        try:
            self._running = self._start(job)
        except OSError as error:
            _log.warning("no report %s: %s", job.out.name, error)

    def _start(self, job: Job) -> _Running:
        job.out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="stream-trainer-report-"))
        (work / "current.arrow").write_bytes(job.current)
        (work / "reference.arrow").write_bytes(job.reference)
        (work / "evidence.json").write_bytes(encoded(job.evidence))
        command = [sys.executable, "-m", "monitors.report", "--timeout", str(self._timeout_seconds)]
        command += ["--current", str(work / "current.arrow"), "--reference", str(work / "reference.arrow")]
        command += ["--evidence", str(work / "evidence.json"), "--out", str(job.out)]
        command += ["--workspace", str(job.workspace)] if job.workspace is not None else []
        variables = {**environment(), **_QUIET, "PYTHONPATH": ":".join(p for p in sys.path if p)}
        with (work / "errors.txt").open("wb") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=variables
            )
        return _Running(job, process, work)

    def _end(self, running: _Running) -> Outcome:
        self._running = None
        code = running.process.returncode
        last = (running.work / "errors.txt").read_text(errors="replace").strip().splitlines()[-1:]
        shutil.rmtree(running.work, ignore_errors=True)
        written = code == 0 and running.job.out.exists()
        if written:
            prune(running.job.out.parent)
        return Outcome(running.job, written, "" if written else f"exit {code} {' '.join(last)}".strip())


def prune(folder: Path, keep: int = KEPT_REPORTS) -> None:
    """Remove all but the newest reports of a folder."""
    files = sorted(folder.glob("*.html"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[keep:]:
        path.unlink(missing_ok=True)
