"""What an alert says to people: one sentence that names what moved, against what, how far and how surely."""

from collections.abc import Sequence

from monitors.alerts import Status
from monitors.findings import Finding


def message_of(
    status: Status, finding: Finding, learned: Finding | None, version: int | None, *, unlikely_above: float
) -> str:
    """The message of an alert.

    Args:
        status: what happens to it.
        finding: what it is about.
        learned: of what differs from the baseline: the same against what was learned, None when nothing is known.
        version: the version that served.
        unlikely_above: a p-value of `learned` above this one is no sign of a difference.
    """
    what = about(finding.kind, finding.feature, finding.segment, finding.together)
    if status == "resolved":
        return f"{what}: no difference any more (p = {finding.p_value:.2g})"
    return f"{what}: {_claim(finding, learned, version, unlikely_above)}{_size(finding)}: {finding.detail}"


def about(kind: str, feature: str, segment: str, together: Sequence[str]) -> str:
    """What an alert is about, as people call it."""
    return (", ".join(together) or feature or kind) + (f" ({segment})" if segment else "")


def _claim(finding: Finding, learned: Finding | None, version: int | None, unlikely_above: float) -> str:
    served = f"version {version}" if version is not None else "the newest version"
    rows = f"{finding.rows} values"
    if finding.kind == "drift" and finding.against == "learned":
        return f"the world moved and the model did not; {rows} differ from what {served} has learned"
    if finding.kind == "drift" and finding.against == "baseline":
        moved = f"{rows} differ from the frozen reference"
        if learned is None or learned.state == "not enough data":
            return f"the world moved; {moved}, and what {served} has learned cannot be compared"
        if learned.p_value <= unlikely_above:
            return f"the world moved, and whether {served} followed is not certain; {moved}"
        return f"the world moved and the model followed; {moved} but not from what {served} has learned"
    other = {"baseline": " than in the frozen reference", "learned": f" than in what {served} has learned"}
    if finding.against == "baseline" and learned is not None and learned.state == "quiet":
        sure = learned.p_value > unlikely_above
        other["baseline"] += f", and {served} followed" if sure else f", and whether {served} followed is not certain"
    words = {
        "quality": "values that are missing, out of range or unseen come in other shares",
        "prediction": "answers come in other shares",
        "label": "what turned out to be true comes in other shares",
        "multivariate": "features go together in another way",
        "schema": "more records cannot be read than before",
    }
    if len(finding.together) > 1:
        return "these columns go missing in the same rows, and in another share" + other.get(finding.against, "")
    if finding.kind in words:
        return words[finding.kind] + other.get(finding.against, "")
    return f"{finding.kind} is beyond its bound" if finding.feature else "beyond its bound"


def _size(finding: Finding) -> str:
    psi = "" if finding.effect.psi is None else f"PSI {finding.effect.psi:.3f}, "
    together = "" if finding.windows == 1 else f", {finding.windows} windows together"
    return f" ({psi}p = {finding.p_value:.2g}, threshold {finding.threshold:.2g}{together})"
