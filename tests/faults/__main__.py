"""`python -m tests.faults [NAME…] [--seconds S] [--seeds N] [--report docs/faults.md]`.

Each name is a module of this package with `measure(options) -> Section`; what breaks a promise ends the run.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import report
from tests.bench.section import Section
from tests.faults.options import Options

NAMES = ("kills", "spark_kills", "soak", "fuzz")
_HEAD = """# Faults

Written by `make faults`; each section names its machine and its command. A section is written only when every promise
held: killed or not, a lineage ends bit for bit as if nothing had happened, and every record counts once; asked whatever
can be drawn, the service does not fail.
"""


def main(argv: Sequence[str]) -> int:
    """Run what was named, all without a name; 130 after Ctrl-C, with everything ended that was started."""
    flags = _parse(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console()
    options = Options(seconds=flags.seconds, seeds=flags.seeds, seed=flags.seed)
    try:
        for name in flags.names or NAMES:
            console.print(f"running {name}", style="dim")
            section: Section = importlib.import_module(f"tests.faults.{name}").measure(options)
            console.print(section.table())
            if flags.report is not None:
                report.write(flags.report, name, section, _command(name, options), head=_HEAD)
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Break things, and look at what holds.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all by default")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long one soak disturbs")
    parser.add_argument("--seeds", type=int, help="how many seeds of what is random; each section has its own default")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    parser.add_argument("--report", type=Path, help="a Markdown file whose sections are rewritten")
    flags = parser.parse_args(argv)
    for name in flags.names:
        if name not in NAMES:
            parser.error(f"{name} is none of {', '.join(NAMES)}")
    return flags


def _command(name: str, options: Options) -> str:
    words = ["python -m tests.faults", name, f"--seconds {options.seconds:g}", f"--seed {options.seed}"]
    return " ".join([*words, f"--seeds {options.seeds}"] if options.seeds is not None else words)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
