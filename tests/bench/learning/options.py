"""What the command line says: what is measured and how long."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.learning import contestants
from tests.bench.learning.catalogue import Lengths

_SIZES, _QUICK_SIZES = (1, 32, 256, 1024, 4096), (1, 32, 256, 1024)
_SEEDS, _QUICK_SEEDS = (0, 1, 2), (0,)
_LIMIT, _QUICK_LIMIT = 1_800.0, 60.0
_QUICK = Lengths(real=3_072, generated=3_072, single=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`streams` and `learners` None: all. `limit`: CPU seconds for one learner's pass over a stream."""

    data: Path | None
    streams: tuple[str, ...] | None
    learners: tuple[str, ...] | None
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    lengths: Lengths
    limit: float
    jobs: int
    report: Path | None
    command: str


def parse(argv: Sequence[str]) -> Options:
    """Ends the program with 2 when something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.learning", description="How well we learn, beside others."
    )
    parser.add_argument("--data", type=Path, help="a folder of .csv and .csv.gz streams in time order")
    parser.add_argument("--quick", action="store_true", help="about ten minutes: short streams, one seed")
    parser.add_argument("--streams", type=_words, help="names, with commas between them")
    parser.add_argument("--learners", type=_words, help=", ".join(c.name for c in contestants.ALL))
    parser.add_argument("--sizes", type=_numbers, help="rows of a block")
    parser.add_argument("--seeds", type=_numbers)
    parser.add_argument("--limit", type=float, help="CPU seconds for one learner's pass over a stream")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--report", type=Path, help="a Markdown file whose sections are rewritten, plots beside it")
    flags = parser.parse_args(argv)
    known = {c.name for c in contestants.ALL}
    if wrong := set(flags.learners or ()) - known:
        parser.error(f"no learner is called {', '.join(sorted(wrong))}; there are {', '.join(sorted(known))}")
    if any(size < 1 for size in flags.sizes or ()) or flags.jobs < 1:
        parser.error("--sizes and --jobs are at least 1")
    return Options(
        data=flags.data,
        streams=flags.streams,
        learners=flags.learners,
        sizes=flags.sizes or (_QUICK_SIZES if flags.quick else _SIZES),
        seeds=flags.seeds or (_QUICK_SEEDS if flags.quick else _SEEDS),
        lengths=_QUICK if flags.quick else Lengths(),
        limit=flags.limit or (_QUICK_LIMIT if flags.quick else _LIMIT),
        jobs=flags.jobs,
        report=flags.report,
        command=_command(argv),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in _words(text))


def _command(argv: Sequence[str]) -> str:
    """As it was given, save for where the data lie, which is this machine's own."""
    shown = list(argv)
    if "--data" in shown[:-1]:
        shown[shown.index("--data") + 1] = "FOLDER"
    shown = ["--data=FOLDER" if word.startswith("--data=") else word for word in shown]
    return " ".join(["python -m tests.bench.learning", *shown])
