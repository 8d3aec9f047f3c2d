"""One change, one alert: what a change brings with it is kept as a finding, and opens no alert of its own. Pure.

A feature that has moved has moved in most of its segments, and in most directions through it.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from monitors.alerts import Alert, key_of
from monitors.findings import Finding

_QUALITY_AND_VALUES = ("drift", "quality")


def together(projections: Sequence[Finding]) -> list[Finding]:
    """Those of all random projections as one a reference: the smallest p-value, times how many there are (Bonferroni)."""
    found = []
    for against in sorted({finding.against for finding in projections}):
        ours = [finding for finding in projections if finding.against == against]
        tested = [finding for finding in ours if finding.state != "not enough data"]
        best = min(tested or ours, key=lambda finding: finding.p_value)
        found.append(
            msgspec.structs.replace(
                best,
                feature="",
                state="quiet" if tested else "not enough data",
                p_value=min(1.0, len(tested) * best.p_value) if tested else 1.0,
                detail=f"{best.feature}: {best.detail}" if tested and best.detail else best.detail,
            )
        )
    return found


def telling(findings: Iterable[Finding], open_alerts: Mapping[str, Alert]) -> list[Finding]:
    """Findings without those that follow from others.

    A segment opens no alert beside its feature, and features together open none beside one of them. What has an open alert is always told, so that it can go on and end.
    """
    given = list(findings)
    moved = {key_of(finding) for finding in given if finding.state == "drift" and not finding.segment}
    moved |= open_alerts.keys()
    alone = any(finding.kind in _QUALITY_AND_VALUES and key_of(finding) in moved for finding in given)
    return [f for f in given if f.state != "drift" or key_of(f) in open_alerts or not _follows(f, moved, alone=alone)]


def _follows(finding: Finding, moved: Iterable[str], *, alone: bool) -> bool:
    if finding.kind == "multivariate":
        return alone
    return bool(finding.segment) and key_of(msgspec.structs.replace(finding, segment="")) in moved
