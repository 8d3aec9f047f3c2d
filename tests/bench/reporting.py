"""What `python -m tests.bench` and `python -m tests.faults` have in common: sections by name, one after the other.

Each name is a module of the package with `measure(options) -> Section`, imported only when it is asked for.
"""

import argparse
import importlib
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from stream_trainer.errors import UsageError
from tests.bench import report
from tests.bench.section import Section


def parser_of(package: str, names: Sequence[str], description: str) -> argparse.ArgumentParser:
    """The flags that both have."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(names)}; all by default")
    parser.add_argument("--report", type=Path, help="a Markdown file whose sections are rewritten")
    return parser


def parse(parser: argparse.ArgumentParser, names: Sequence[str], argv: Sequence[str]) -> argparse.Namespace:
    """The flags, with a usage error for a name that there is none of."""
    flags = parser.parse_args(argv)
    for name in flags.names:
        if name not in names:
            parser.error(f"{name} is none of {', '.join(names)}")
    return flags


def measure_all(
    package: str,
    names: Sequence[str],
    options: Any,
    *,
    command: Callable[[str], str],
    path: Path | None,
    head: str = report.HEAD,
) -> int:
    """Measure and show each; 2 when something is missing for one of them, 130 after Ctrl-C, with everything ended.

    Args:
        package: where the modules are.
        names: of the modules.
        options: what `measure` is told.
        command: how a section is written again, for the report.
        path: the report; None: only show.
        head: of a report that is not there yet.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console()
    code = 0
    try:
        for name in names:
            console.print(f"running {name}", style="dim")
            try:
                section: Section = importlib.import_module(f"{package}.{name}").measure(options)
            except UsageError as error:
                console.print(f"error: {error}", markup=False, soft_wrap=True)
                code = error.exit_code
                continue
            console.print(section.table())
            if path is not None:
                report.write(path, name, section, command(name), head=head)
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    return code


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
