"""What a measurement says: a table, the lines under it, and the goals it is held against."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A stated goal and what came out; lower is better."""

    what: str
    limit: float
    found: float
    unit: str

    def line(self) -> str:
        """One sentence, a miss named as such."""
        verdict = "met" if self.found <= self.limit else "MISSED"
        return f"Goal: {self.what} ≤ {self.limit:g} {self.unit}: {verdict} ({self.found:.2f} {self.unit})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One measurement's result."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    goals: Sequence[Goal] = ()

    @property
    def lines(self) -> list[str]:
        """The notes, then the goals."""
        return [*self.notes, *(goal.line() for goal in self.goals)]

    def table(self) -> Table:
        """For a terminal."""
        table = Table(*self.headings, title=self.title, title_justify="left", caption="\n".join(self.lines))
        table.caption_justify = "left"
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For the report."""
        rows = [self.headings, ["---"] * len(self.headings), *self.rows]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"## {self.title}\n\n{table}\n\n" + "\n".join(f"* {line}" for line in self.lines)
