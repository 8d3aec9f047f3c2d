"""Records that cannot be read: does a window have more of them, for any reason, than the windows before it? Pure.

Only more is a finding: fewer is what everybody wants. A window that has more teaches nothing, so broken records that
stay do not become usual; and what was broken from the first window on is nothing that changed.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from monitors.comparing import Comparisons, compare_shares
from monitors.deciding import decide_alone
from monitors.effects import effects
from monitors.findings import Effect, Finding
from monitors.skipped import Skipped
from monitors.usual import MEMORY, Past, learn, weigh
from stream_trainer.monitoring import Monitoring


class SchemaState(msgspec.Struct, frozen=True, kw_only=True):
    """What is usual of unreadable records; msgspec can write it.

    Attributes:
        records: of the windows so far, readable or not; the newest count most: all is halved every `MEMORY` windows.
        rows: those that could not be read, by reason; a reason stays, with 0 as well.
        windows: since all was halved.
        usual: how much windows usually differ, by reason; where `usual_windows` asks for it.
    """

    records: int = 0
    rows: dict[str, int] = {}
    windows: int = 0
    usual: dict[str, Past] = {}


def judge_schema(
    state: SchemaState, skipped: Skipped, rows: int, monitoring: Monitoring, *, share: float
) -> tuple[SchemaState, list[Finding]]:
    """A window has closed: one finding a reason, kind `schema`, whose `feature` is the reason.

    Its share among all records of the window is compared with that in the windows before by Fisher's exact test, twice
    the smaller side, over all reasons by Benjamini and Hochberg.

    Args:
        state: after the window before.
        skipped: what could not be read.
        rows: what could.
        monitoring: the stated rate, the least records, and whether windows are judged by how much they usually differ.
        share: of `monitoring.false_alarms_per_window` that this kind may use.
    """
    records = rows + skipped.total
    reasons = sorted({*state.rows, *skipped.rows})
    few = min(records, state.records) < monitoring.min_rows
    if not reasons:
        return _after(state, skipped, records), []
    window = np.array([skipped.rows.get(reason, 0) for reason in reasons], np.int64)[:, None]
    before = np.array([state.rows.get(reason, 0) for reason in reasons], np.int64)[:, None]
    compared = compare_shares(window, np.full_like(window, records), before, np.full_like(before, state.records))
    found = _findings(reasons, compared, skipped, (window, before), (records, state.records))
    if few:
        why = f"{records} records after {state.records}, at least {monitoring.min_rows} of each are needed"
        silent = {"state": "not enough data", "p_value": 1.0, "statistic": 0.0, "effect": Effect(), "detail": why}
        return _after(state, skipped, records), [msgspec.structs.replace(one, **silent) for one in found]
    pasts = [state.usual.get(reason, Past()) for reason in reasons]
    if monitoring.usual_windows:
        shared = np.full(len(reasons), records / (records + state.records))
        weighed = weigh(pasts, compared.measures, shared, monitoring.usual_windows)
        found = [_in_light(one, *light) for one, *light in zip(found, weighed.p_value, weighed.waits, strict=True)]
    found = decide_alone(found, share * monitoring.false_alarms_per_window)
    drifted = [one.state == "drift" for one in found]
    if monitoring.usual_windows:
        taught = learn(pasts, compared.measures, weighed.most, drifted)
        state = msgspec.structs.replace(state, usual={**state.usual, **dict(zip(reasons, taught, strict=True))})
    if any(drifted):
        return msgspec.structs.replace(state, rows=dict.fromkeys(reasons, 0) | state.rows), found
    return _after(state, skipped, records), found


def _findings(
    reasons: Sequence[str],
    compared: Comparisons,
    skipped: Skipped,
    rows: tuple[np.ndarray, np.ndarray],
    records: tuple[int, int],
) -> list[Finding]:
    both = [np.column_stack([bad[:, 0], of - bad[:, 0]]) for bad, of in zip(rows, records, strict=True)]
    sizes = effects(both[0], both[1], ordered=False)
    found = []
    for i, reason in enumerate(reasons):
        now, before = (int(bad[i, 0]) / max(1, of) for bad, of in zip(rows, records, strict=True))
        more = now > before
        found.append(
            Finding(
                kind="schema",
                feature=reason,
                against="limit",
                state="quiet",
                statistic=float(compared.statistic[i, 0]) if more else 0.0,
                p_value=float(compared.p_value[i, 0]) if more else 1.0,
                effect=Effect(psi=float(sizes.psi[i]), jensen_shannon=float(sizes.jensen_shannon[i])),
                rows=records[0],
                reference_rows=records[1],
                detail=f"{before:.2%} -> {now:.2%} of all records{_first(skipped, reason)}",
            )
        )
    return found


def _first(skipped: Skipped, reason: str) -> str:
    """Where to look: the first record of the first partitions."""
    places = [
        f"{topic}/{partition} from offset {first}"
        for topic, partitions in skipped.offsets.get(reason, {}).items()
        for partition, (first, _) in partitions.items()
    ]
    return "".join(f"; {place}" for place in places[:3])


def _in_light(finding: Finding, p_value: float, waits: int) -> Finding:
    if waits >= 0:
        return msgspec.structs.replace(
            finding, state="not enough data", p_value=1.0, detail="how much windows usually differ is not known yet"
        )
    return msgspec.structs.replace(finding, p_value=float(max(p_value, finding.p_value)))


def _after(state: SchemaState, skipped: Skipped, records: int) -> SchemaState:
    halved = state.windows + 1 >= MEMORY
    part = 2 if halved else 1
    names = sorted({*state.rows, *skipped.rows})
    return msgspec.structs.replace(
        state,
        records=(state.records + records) // part,
        rows={name: (state.rows.get(name, 0) + skipped.rows.get(name, 0)) // part for name in names},
        windows=0 if halved else state.windows + 1,
    )
