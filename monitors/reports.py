"""Starts `monitors.report` for alerts that opened, one process at a time, and keeps the newest reports.

A report that fails, or takes too long, costs its report and nothing else, and that is told.
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
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec
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
MOST_WAITING = 20
_WAITING = "waiting"
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
    """What became of a report; `detail` says why when the file is not there."""

    job: Job
    written: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    path: Path
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
    """At most one report process; what waits lies beside the reports, so that the next monitor writes it after a crash.

    A job that is asked for again takes the place of the first. Where too many wait, those of the oldest windows give way.

    Args:
        folder: of the reports.
        timeout_seconds: a process that takes longer ends itself.
    """

    def __init__(self, folder: Path, *, timeout_seconds: int = TIMEOUT_SECONDS) -> None:
        self._folder = folder
        self._timeout_seconds = timeout_seconds
        self._running: _Running | None = None
        self._given_up: deque[Outcome] = deque()

    def ask(self, job: Job) -> None:
        """Write this report soon."""
        path = self._folder / _WAITING / f"{job.evidence.end:%Y%m%dT%H%M%S%f}-{job.out.stem}.job"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(msgspec.msgpack.encode(job, enc_hook=str))
            partial.replace(path)
        except OSError as error:
            self._given_up.append(Outcome(job, False, f"it cannot wait: {error}"))
        waiting = [path for path in self._waiting() if self._running is None or path != self._running.path]
        for path in waiting[:-MOST_WAITING]:
            self._give_up(path, f"more than {MOST_WAITING} wait")
        self._start_next()

    def finished(self) -> Outcome | None:
        """A report that ended or was given up since the last call, if any; never waits."""
        if self._given_up:
            return self._given_up.popleft()
        outcome = None
        if self._running is not None:
            if self._running.process.poll() is None:
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
        """End what runs; it and what waits are written by the next monitor."""
        if self._running is not None:
            self._running.process.kill()
            self._running.process.wait()
            shutil.rmtree(self._running.work, ignore_errors=True)
            self._running = None

    def _waiting(self) -> list[Path]:
        return sorted((self._folder / _WAITING).glob("*.job"))

    def _start_next(self) -> None:
        for path in self._waiting() if self._running is None else ():
            job = self._read(path)
            if job is None:
                continue
            try:
                self._running = self._start(job, path)
            except OSError as error:
                self._give_up(path, str(error))
            else:
                return

    def _read(self, path: Path) -> Job | None:
        """What waits in a file; one that cannot be read is removed."""
        try:
            job = msgspec.msgpack.decode(path.read_bytes(), type=Job, dec_hook=_of_text)
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("no report of %s: %s", path.name, error)
            path.unlink(missing_ok=True)
            return None
        return replace(job, out=self._folder / job.out.name)

    def _give_up(self, path: Path, why: str) -> None:
        job = self._read(path)
        path.unlink(missing_ok=True)
        if job is not None:
            self._given_up.append(Outcome(job, False, why))

    def _start(self, job: Job, path: Path) -> _Running:
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
        return _Running(job, path, process, work)

    def _end(self, running: _Running) -> Outcome:
        self._running = None
        code = running.process.returncode
        last = (running.work / "errors.txt").read_text(errors="replace").strip().splitlines()[-1:]
        shutil.rmtree(running.work, ignore_errors=True)
        running.path.unlink(missing_ok=True)
        written = code == 0 and running.job.out.exists()
        if written:
            prune(running.job.out.parent)
        return Outcome(running.job, written, "" if written else f"exit {code} {' '.join(last)}".strip())


def _of_text(kind: type, text: str) -> object:
    return kind(text)


def prune(folder: Path, keep: int = KEPT_REPORTS) -> None:
    """Remove all but the newest reports of a folder."""
    files = sorted(folder.glob("*.html"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[keep:]:
        path.unlink(missing_ok=True)
