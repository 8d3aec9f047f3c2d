"""How soon our monitor finds what changes, at one false alarm in 30 days of windows of five minutes."""

import numpy as np

from tests.bench.drift.deciding import alarms, delay, learn
from tests.bench.drift.worlds import CHANGES, QUIET, ROWS, Change, families
from tests.bench.options import Options
from tests.bench.section import Section

FEATURES = 20
PER_WINDOW = 1 / 8_640
WINDOWS = 200
_DELAYS = 5
_MOST = 128


def measure(options: Options) -> Section:
    """`runs` is the number of windows of each cell."""
    windows = options.runs or WINDOWS
    return Section(
        title="Drift: what is found, and how soon",
        headings=["change of one feature in 20", *(f"{rows:,} rows" for rows in ROWS)],
        rows=[[change.name, *(_cell(change, rows, windows) for rows in ROWS)] for change in CHANGES],
        notes=[
            "Share of changed windows in which one window alone is called drift; then the median number of windows until it is found at any scale.",
            f"One false alarm in 8,640 windows, a quarter of it for single windows. {windows} windows a cell, {_DELAYS} runs for the delay, at most {_MOST} windows.",
        ],
    )


def _cell(change: Change, rows: int, windows: int) -> str:
    rng = np.random.default_rng([rows, CHANGES.index(change)])
    changed = next(i for i, family in enumerate(families(FEATURES)) if change.applies(family))
    found = 0
    for number in range(windows):
        if number % 100 == 0:
            frozen = learn(rng, FEATURES)
        learned = [one.again(rng) for one in frozen]
        drawn = [one.window(rng, rows, change if i == changed else QUIET) for i, one in enumerate(learned)]
        found += alarms(learned, drawn, PER_WINDOW / 4)[changed]
    delays = [delay(learn(rng, FEATURES), rng, rows, change, changed, _MOST, PER_WINDOW) for _ in range(_DELAYS)]
    middle = int(np.median(delays))
    return f"{found / windows:.0%}, {middle if middle <= _MOST else f'> {_MOST}'}"
