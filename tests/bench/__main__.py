"""`python -m tests.bench [NAME…] [--runs N] [--seconds S] [--report docs/benchmarks.md]`."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from stream_trainer.errors import UsageError
from tests.bench import report
from tests.bench.options import Options
from tests.bench.section import Section

NAMES = ("first_prediction", "freshness", "memory", "decode", "learn", "commits", "recovery", "serving", "storm")


def main(argv: Sequence[str]) -> int:
    """Measure what was named, all without a name; 2 when something is missing for one of them.

    130 after Ctrl-C, with everything ended that was started.
    """
    flags = _parse(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console()
    options = Options(runs=flags.runs, seconds=flags.seconds)
    code = 0
    try:
        for name in flags.names or NAMES:
            console.print(f"measuring {name}", style="dim")
            try:
                section = _measure(name, options)
            except UsageError as error:
                console.print(f"error: {error}", markup=False, soft_wrap=True)
                code = error.exit_code
                continue
            console.print(section.table())
            if flags.report is not None:
                report.write(flags.report, name, section, _command(name, options))
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    return code


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what the documentation states.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all by default")
    parser.add_argument("--runs", type=int, help="repetitions")
    parser.add_argument("--seconds", type=float, help="duration of one repetition")
    parser.add_argument("--report", type=Path, help="a Markdown file whose sections are rewritten")
    flags = parser.parse_args(argv)
    for name in flags.names:
        if name not in NAMES:
            parser.error(f"{name} is none of {', '.join(NAMES)}")
    return flags


def _measure(name: str, options: Options) -> Section:
    """Imported only when asked for: torch and the flights take seconds."""
    section: Section = importlib.import_module(f"tests.bench.{name}").measure(options)
    return section


def _command(name: str, options: Options) -> str:
    words = ["python -m tests.bench", name]
    words += [f"--runs {options.runs}"] if options.runs is not None else []
    words += [f"--seconds {options.seconds:g}"] if options.seconds is not None else []
    return " ".join(words)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
