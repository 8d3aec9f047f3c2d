"""`python -m tests.bench [NAME…] [--runs N] [--seconds S] [--report docs/benchmarks.md]`."""

import sys
from collections.abc import Sequence
from functools import partial

from tests.bench import reporting
from tests.bench.options import Options

_PACKAGE = "tests.bench"
NAMES = (
    "first_prediction",
    "freshness",
    "memory",
    "decode",
    "learn",
    "learner_pace",
    "commits",
    "recovery",
    "joining",
    "serving",
    "storm",
    "steady_storm",
    "drift",
    "drift_cost",
    "drift_flights",
    "drift_whole",
    "drift.calibration",
    "drift.power",
    "drift.together",
    "drift.vocabularies",
)


def main(argv: Sequence[str]) -> int:
    """Measure what was named, all without a name; see `reporting.measure_all`."""
    parser = reporting.parser_of(_PACKAGE, NAMES, "Measure what the documentation states.")
    parser.add_argument("--runs", type=int, help="repetitions")
    parser.add_argument("--seconds", type=float, help="duration of one repetition")
    flags = reporting.parse(parser, NAMES, argv)
    options = Options(runs=flags.runs, seconds=flags.seconds)
    command = partial(_command, options)
    return reporting.measure_all(_PACKAGE, flags.names or NAMES, options, command=command, path=flags.report)


def _command(options: Options, name: str) -> str:
    words = [f"python -m {_PACKAGE}", name]
    words += [f"--runs {options.runs}"] if options.runs is not None else []
    words += [f"--seconds {options.seconds:g}"] if options.seconds is not None else []
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
