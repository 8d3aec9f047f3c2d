"""How often our monitor alarms while nothing changes, at the stated rate of one window in twenty."""

import numpy as np

from tests.bench.drift.deciding import alarms, learn
from tests.bench.drift.worlds import FEATURES, REFERENCE_ROWS, ROWS
from tests.bench.options import Options
from tests.bench.section import Goal, Section

BUDGET = 0.05
WINDOWS = 1_000
# Bins are frozen anew every so many windows; what was learned is drawn anew for each, or alarms would come together.
_FROZEN = 100


def measure(options: Options) -> Section:
    """`runs` is the number of windows of each cell."""
    windows = options.runs or WINDOWS
    found = {(rows, features): rate(rows, features, windows) for rows in ROWS for features in FEATURES}
    most = max(found.values())
    allowed = BUDGET + 3 * (BUDGET * (1 - BUDGET) / windows) ** 0.5
    return Section(
        title="Drift: alarms while nothing changes",
        headings=["rows in a window", *(f"{features} features" for features in FEATURES)],
        rows=[[f"{rows:,}", *(f"{found[rows, features]:.1%}" for features in FEATURES)] for rows in ROWS],
        notes=[
            f"{windows:,} quiet windows a cell, the share in which any feature was called drift; stated: at most {BUDGET:.0%}.",
            f"A quarter each: normal, lognormal, heavy ties, rare categories; reference of {REFERENCE_ROWS:,} rows, another one for each window.",
            "Bin counts are sampled. Given 5 %, three deviations of chance are allowed for below.",
        ],
        goals=[Goal(what="largest rate", limit=100 * allowed, found=100 * most, unit="%")],
    )


def rate(rows: int, features: int, windows: int) -> float:
    """The share of quiet windows with any alarm."""
    rng = np.random.default_rng([rows, features])
    alarmed = 0
    for number in range(windows):
        if number % _FROZEN == 0:
            frozen = learn(rng, features)
        learned = [one.again(rng) for one in frozen]
        alarmed += any(alarms(learned, [one.window(rng, rows) for one in learned], BUDGET))
    return alarmed / windows
