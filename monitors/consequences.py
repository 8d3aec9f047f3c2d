"""One change, one alert: what a change brings with it is kept as a finding, and opens no alert of its own. Pure.

A feature that has moved has moved in most of its segments, and in most directions through it. Columns that go missing in
the same rows have one cause.
"""

from collections.abc import Container, Iterable, Mapping, Sequence

import msgspec

from monitors.alerts import Alert, key_of, member_keys
from monitors.findings import VERSION, Finding

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
    """Findings without those that follow from others, and under one name those that are one change.

    A segment opens no alert beside its feature, and features together open none beside one of them that differs from the same
    reference. What has an open alert is always told, so that it can go on and end.
    Columns that go missing in the same rows are told under the name of one of them: of one that has an alert already, else the first.
    As long as an alert is open, whatever becomes of its columns is told under it. An alert about one version is quiet
    where that version is not told apart any more.
    """
    given = [*findings]
    given += _gone(given, open_alerts)
    homes = {key: alert for alert in open_alerts.values() for key in member_keys(alert)}
    homes |= open_alerts
    moved = {key_of(finding) for finding in given if finding.state == "drift" and not finding.segment}
    moved |= homes.keys()
    alone = {f.against for f in given if f.kind in _QUALITY_AND_VALUES and key_of(f) in moved}
    told = [f for f in given if f.state != "drift" or key_of(f) in homes or not _follows(f, moved, alone)]
    leaders = _leaders(told, homes)
    return [_under(finding, leaders.get(key_of(finding), finding.feature), open_alerts) for finding in told]


def _gone(given: Sequence[Finding], open_alerts: Mapping[str, Alert]) -> list[Finding]:
    """Versions come and go: what ends the alerts of those of which a window of predictions says nothing."""
    if not any(finding.windows == 1 and finding.kind == "prediction" for finding in given):
        return []
    known = {key_of(finding) for finding in given}
    return [
        Finding(
            kind=alert.kind,
            feature=alert.feature,
            segment=alert.segment,
            against=alert.against,
            state="quiet",
            detail="it did not answer beside another version",
        )
        for key, alert in open_alerts.items()
        if alert.segment.startswith(VERSION) and not known.intersection(member_keys(alert))
    ]


def _leaders(told: Sequence[Finding], homes: Mapping[str, Alert]) -> dict[str, str]:
    """The column under whose name what goes with it is told, by the key of each column that would have been told."""
    found = {key: alert.feature for key, alert in homes.items() if alert.features}
    for finding in told:
        keys = {key_of(msgspec.structs.replace(finding, feature=name)): name for name in finding.together}
        known = [found.get(key, name) for key, name in keys.items() if key in found or key in homes]
        for key in keys:
            found.setdefault(key, (known or finding.together)[0])
    return found


def _under(finding: Finding, leader: str, open_alerts: Mapping[str, Alert]) -> Finding:
    """A finding under another name, saying whose it is; one that has an alert of its own stays there, and names no other."""
    if leader == finding.feature:
        return finding
    if key_of(finding) in open_alerts:
        return msgspec.structs.replace(finding, together=())
    names = finding.together or (finding.feature,)
    return msgspec.structs.replace(finding, feature=leader, together=names if finding.state == "drift" else ())


def _follows(finding: Finding, moved: Container[str], alone: Container[str]) -> bool:
    if finding.kind == "multivariate":
        return finding.against in alone
    return bool(finding.segment) and key_of(msgspec.structs.replace(finding, segment="")) in moved
