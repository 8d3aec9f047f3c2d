"""What the trainer alerts about: micro-batches that failed a gate, and versions whose files are damaged. Pure.

Alerts follow from manifests alone, so that saying them again after a crash says the same under the same keys.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

import msgspec

from stream_trainer.offsets import Ranges
from stream_trainer.store.manifest import Manifest, Verdict

_FURTHEST = 1_000


class TrainerAlert(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `P.alerts`; the newest one under a key says how the alert stands.

    `ranges` are the quarantined ones of the version, in the order of its cuts.
    """

    alert_key: str
    kind: Literal["gate", "store"]
    pipeline: str
    status: Literal["opened", "updated", "resolved"]
    severity: Literal["warning", "critical"] = "critical"
    model_version: int
    opened_at: datetime
    updated_at: datetime
    message: str
    ranges: list[Ranges] = []


def gate_alerts(now: Manifest, before: Manifest | None, opened_at: Callable[[str], datetime]) -> list[TrainerAlert]:
    """What the gates of a version open, go on with or resolve.

    Args:
        now: the version that was committed.
        before: the one before it.
        opened_at: since when a gate that had failed before has been failing.
    """
    failing = {v.gate for v in before.gates if not v.passed} if before else set()
    found = []
    for verdict in now.gates:
        was = verdict.gate in failing
        if verdict.passed and not was:
            continue
        status: Literal["opened", "updated", "resolved"] = (
            "resolved" if verdict.passed else "updated" if was else "opened"
        )
        since = opened_at(verdict.gate) if was else now.created_at
        found.append(_gate_alert(now, verdict, status, since))
    return found


def failing_since(gate: str, back: Iterable[Manifest]) -> datetime | None:
    """When a gate began to fail, from manifests newest first: the oldest of the unbroken run of failures."""
    since = None
    for _, manifest in zip(range(_FURTHEST), back, strict=False):
        if not any(v.gate == gate and not v.passed for v in manifest.gates):
            break
        since = manifest.created_at
    return since


def damage_alert(pipeline: str, number: int, problem: str, at: datetime, *, healed_by: int | None) -> TrainerAlert:
    """A version whose files differ from what was committed; resolved once a newer version has taken its cuts in."""
    told = f"version {number} is damaged: {problem}"
    return TrainerAlert(
        alert_key=f"store/version-{number}",
        kind="store",
        pipeline=pipeline,
        status="opened" if healed_by is None else "resolved",
        model_version=number,
        opened_at=at,
        updated_at=at,
        message=told if healed_by is None else f"{told}; its records are learned again in version {healed_by}",
    )


def _gate_alert(
    manifest: Manifest, verdict: Verdict, status: Literal["opened", "updated", "resolved"], since: datetime
) -> TrainerAlert:
    failed = f"version {manifest.version} keeps the weights of its parent: {verdict.gate}: {verdict.detail}"
    partly = f"part of version {manifest.version} was quarantined: {verdict.gate}: {verdict.detail}"
    message = partly if manifest.rows.trained else failed
    return TrainerAlert(
        alert_key=f"gate/{verdict.gate}",
        kind="gate",
        pipeline=manifest.pipeline,
        status=status,
        model_version=manifest.version,
        opened_at=since,
        updated_at=manifest.created_at,
        message=f"{verdict.gate} passes again with version {manifest.version}" if verdict.passed else message,
        ranges=manifest.quarantined,
    )
