"""`docs/benchmarks.md`: each measurement rewrites its own section and leaves the others as they are."""

import re
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import machine
from tests.bench.section import Section

HEAD = """# Benchmarks

Written by `python -m tests.bench NAME… --report docs/benchmarks.md`; each section names its machine and its command.
Figures stand as they came out, misses included.
"""


def write(path: Path, name: str, section: Section, command: str, *, head: str = HEAD) -> None:
    """Replace the section `name`, or append it."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`  \n{machine.describe()}"
    block = f"{begin}\n{section.markdown()}\n\n{stamp}\n{end}\n"
    text = path.read_text() if path.exists() else head
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end) + "\n", re.DOTALL)
    text = pattern.sub(lambda _: block, text) if pattern.search(text) else f"{text}\n{block}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
