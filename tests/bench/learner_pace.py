"""How many rows a second the default learner forecasts and learns on one core: 20 numbers, two classes, blocks of 256.

By processor time, so that what else the machine does counts little. Encoding is part of it; decoding and commits are not.
"""

import statistics
import time

import numpy as np
import torch

from stream_trainer.contract import BinaryLabel, Contract, Numeric
from stream_trainer.features import encode
from stream_trainer.learner import Batch, State
from stream_trainer.learners import Tabular
from stream_trainer.pipeline import Pipeline
from stream_trainer.strategies import local
from tests.bench.options import Options
from tests.bench.section import Goal, Section

COLUMNS, BLOCK, BLOCKS, WARM = 20, 256, 60, 12
RUNS = 7
MOST_MICROSECONDS = 50.0


def measure(options: Options) -> Section:
    """Medians over runs, each over the blocks after those that warm everything."""
    local.prepare()
    runs = [_run(seed) for seed in range(options.runs or RUNS)]
    rows = []
    for place, what in enumerate(("forecast", "learn", "both")):
        found = [run[place] for run in runs]
        median = statistics.median(found)
        rows.append([what, f"{1e6 / median:,.0f}", f"{median:.1f}", f"{min(found):.1f} to {max(found):.1f}"])
    return Section(
        title="Pace of the default learner",
        headings=("step", "rows/s", "µs a row, median", "runs from, to"),
        rows=rows,
        notes=[
            f"{COLUMNS} numeric columns, 2 classes; {len(runs)} runs of {BLOCKS} blocks of {BLOCK} rows, after {WARM} that do not count.",
            f"Processor time of one process, torch with {torch.get_num_threads()} threads.",
            f"{MOST_MICROSECONDS:g} µs a row are {1e6 / MOST_MICROSECONDS:,.0f} rows/s.",
        ],
        goals=[
            Goal(
                what="forecast and learn a row",
                limit=MOST_MICROSECONDS,
                found=statistics.median(r[2] for r in runs),
                unit="µs",
            )
        ],
    )


def _run(seed: int) -> tuple[float, float, float]:
    """Processor microseconds a row: of the forecast, of learning, of both."""
    features = [Numeric(f"x{i}") for i in range(COLUMNS)]
    contract = Contract(features=features, label=BinaryLabel("y"), key="id", event_time="at")
    pipeline = Pipeline(name="bench", contract=contract, learner=Tabular(), seed=seed)
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=COLUMNS)
    state, spent = pipeline.learner.init(pipeline.spec, seed), np.zeros(2)
    for number in range(WARM + BLOCKS):
        x = rng.normal(size=(BLOCK, COLUMNS))
        y = (x @ plane + rng.normal(size=BLOCK) > 0).astype(np.float64)
        state, seconds = _block(pipeline, state, {f.name: x[:, i] for i, f in enumerate(features)}, y)
        spent += np.array(seconds) * (number >= WARM)
    forecast, learn = (spent / (BLOCKS * BLOCK) * 1e6).tolist()
    return forecast, learn, forecast + learn


def _block(
    pipeline: Pipeline,
    state: State,
    columns: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]],
    y: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> tuple[State, tuple[float, float]]:
    """A block as the trainer has it: encoded once, forecast, then learned."""
    started = time.process_time()
    batch = Batch(features=encode(pipeline.contract, columns), labels=torch.from_numpy(y))
    pipeline.learner.predict(state, batch.features)
    forecast = time.process_time()
    state, _ = local.learn(pipeline.learner, state, batch)
    return state, (forecast - started, time.process_time() - forecast)
