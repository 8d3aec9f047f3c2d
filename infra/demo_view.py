"""How the demo looks: a live panel on a terminal, a line every few seconds elsewhere, and the summary at the end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.panel import Panel
from rich.table import Table

from infra.demo_facts import Facts, scores

ENOUGH = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the summary ends with."""

    lines: tuple[tuple[str, str, bool], ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(good for _, _, good in self.lines)


def _score(metrics: Mapping[str, Any] | None, name: str) -> str:
    if metrics is None:
        return "-"
    model, no_change, majority = metrics[name], metrics["no_change"][name], metrics["majority"][name]
    return f"{model:.3f}   no-change {no_change:.3f}   majority {majority:.3f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def rows(facts: Facts, url: str) -> list[tuple[str, str]]:
    """What is shown live: a name and a value a line."""
    metrics = scores(facts)
    through = facts.head.manifest.trained_through if facts.head else None
    fresh = facts.freshness(0.5)
    return [
        ("version", f"{facts.versions or '-'} (trained through {through:%Y-%m-%d %H:%M})" if through else "none yet"),
        ("learned", f"{facts.learned:,} flights, {facts.rows_per_second:,.0f} a second"),
        ("event to served", f"{_seconds(fresh)} (median), {_seconds(facts.freshness(0.99))} (99 %)"),
        ("accuracy", _score(metrics, "accuracy")),
        ("log loss", _score(metrics, "log_loss")),
        (
            "predictions",
            f"{facts.answered:,} answered, {facts.early:,} before the first version, {facts.failed} failed",
        ),
        ("labels", f"{facts.labels:,} landed, {facts.examples:,} joined with their predictions"),
        ("match rate", _share(facts.match_rate)),
        ("open alerts", ", ".join(sorted(facts.alerts)) or "none"),
        ("API docs", f"{url}/docs"),
    ]


def panel(facts: Facts, url: str, message: str, elapsed: float) -> Panel:
    """The live panel."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(facts, url):
        table.add_row(name, value)
    if message:
        table.add_row("", f"[yellow]{message}[/]")
    return Panel(table, title=f"stream-trainer demo, {elapsed:.0f} s", subtitle="Ctrl-C ends it", width=100)


def line(facts: Facts, elapsed: float) -> str:
    """The same in one line."""
    metrics = scores(facts)
    told = (metrics, metrics["no_change"], metrics["majority"]) if metrics else ()
    accuracy = "/".join(f"{one['accuracy']:.3f}" for one in told) or "-"
    return (
        f"{elapsed:5.0f} s  version {facts.versions}  learned {facts.learned:,} ({facts.rows_per_second:.0f}/s)  "
        f"fresh {_seconds(facts.freshness(0.5))}  accuracy/no change/majority {accuracy}  "
        f"answered {facts.answered:,} failed {facts.failed}  joined {facts.examples:,} of {facts.labels:,} "
        f"({_share(facts.match_rate)})  alerts {len(facts.alerts)}"
    )


def judge(facts: Facts) -> Verdict:
    """Weights changed in the running server, nothing failed, and the model beat the majority baseline."""
    changed = len(facts.first_served)
    metrics = scores(facts)
    lines = [
        ("weights changed in the running server", f"{changed} versions answered", changed >= 2),
        (
            "no prediction failed",
            f"{facts.failed} of {facts.answered + facts.early + facts.failed:,}",
            not facts.failed,
        ),
    ]
    lines.append(
        (
            "labels were joined, none of them twice",
            f"{facts.examples:,} of {facts.labels:,}",
            0 < facts.examples <= facts.labels,
        )
    )
    claim = "beat the majority baseline's log loss"
    if metrics is None or facts.learned < ENOUGH:
        lines.append((claim, f"too early: {facts.learned:,} of {ENOUGH:,} examples learned", True))
    else:
        model, majority = metrics["log_loss"], metrics["majority"]["log_loss"]
        whole = metrics["since_start"]
        # Of all forecasts: the newest ones may be of a storm, which nobody has seen before.
        since, baseline = whole["log_loss"], whole["majority"]["log_loss"]
        detail = (
            f"{since:.4f} against {baseline:.4f} since the start; "
            f"{model:.4f} against {majority:.4f} over the last {metrics['rows']:,}"
        )
        lines.append((claim, detail, since < baseline))
    return Verdict(tuple(lines))


def summary(facts: Facts, url: str, first_learned: float | None) -> Table:
    """The table that `--for` ends with."""
    table = Table(title="stream-trainer demo", title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for name, value in rows(facts, url)[:-1]:
        table.add_row(name, value)
    table.add_row("first learned answer", _seconds(first_learned) + " after the start")
    table.add_row("alerts raised", ", ".join(sorted(facts.alerts_seen)) or "none")
    table.add_section()
    for name, detail, good in judge(facts).lines:
        table.add_row(name, f"{'[green]yes[/]' if good else '[red]NO[/]'}  {detail}")
    return table
