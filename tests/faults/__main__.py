"""`python -m tests.faults [NAME…] [--seconds S] [--seeds N] [--report docs/faults.md]`; what breaks a promise ends the run."""

import sys
from collections.abc import Sequence
from functools import partial

from tests.bench import reporting
from tests.faults.options import Options

_PACKAGE = "tests.faults"
NAMES = ("kills", "spark_kills", "soak", "joining", "fuzz")
_HEAD = """# Faults

Written by `make faults`; each section names its machine and its command. A section is written only when every promise
held: killed or not, a lineage ends bit for bit as if nothing had happened, and every record counts once; asked whatever
can be drawn, the service does not fail.
"""


def main(argv: Sequence[str]) -> int:
    """Run what was named, all without a name; see `reporting.measure_all`."""
    parser = reporting.parser_of(_PACKAGE, NAMES, "Break things, and look at what holds.")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long one soak disturbs")
    parser.add_argument("--seeds", type=int, help="how many seeds of what is random; each section has its own default")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    flags = reporting.parse(parser, NAMES, argv)
    options = Options(seconds=flags.seconds, seeds=flags.seeds, seed=flags.seed)
    command = partial(_command, options)
    return reporting.measure_all(
        _PACKAGE, flags.names or NAMES, options, command=command, path=flags.report, head=_HEAD
    )


def _command(options: Options, name: str) -> str:
    words = [f"python -m {_PACKAGE}", name, f"--seconds {options.seconds:g}", f"--seed {options.seed}"]
    return " ".join([*words, f"--seeds {options.seeds}"] if options.seeds is not None else words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
