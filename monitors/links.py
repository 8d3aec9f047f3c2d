"""Addresses of the dashboard in the records of `P.alerts`: the cell that shows an alert, and its report.

They are put in as a record is published, so what is remembered of an alert holds none and an address may change.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from urllib.parse import quote, urlencode

import msgspec

from monitors.alerts import Alert
from stream_trainer.settings import MonitorSettings

Publish = Callable[[Sequence[Alert]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """Where people find the dashboard of a pipeline.

    Attributes:
        url: ends with a slash; "/" alone: alerts hold paths, which whoever reads them has to know the host of.
        window: how long its windows are; the newest of those that were judged together is shown.
    """

    url: str
    window: timedelta

    def cell(self, start: datetime, feature: str, segment: str) -> str:
        """The window that began then, opened at a feature and segment."""
        at = start.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return f"{self.url}#cell?{urlencode({'start': at, 'feature': feature, 'segment': segment}, errors='replace')}"

    def report(self, name: str) -> str:
        """A report by its file's name."""
        return f"{self.url}reports/{quote(name)}"

    def linked(self, alert: Alert) -> Alert:
        """An alert with the links that it can have; further calls change nothing."""
        name, span = (alert.report or "").rpartition("/")[2], alert.window
        plotted = span.start < span.end  # what is judged by the clock is about no window
        return msgspec.structs.replace(
            alert,
            report=self.report(name) if name else None,
            plot=self.cell(span.end - self.window, alert.feature, alert.segment) if plotted else None,
        )


def dashboard_of(settings: MonitorSettings, window: timedelta) -> Dashboard:
    """What the settings say, else where this machine serves it; paths alone where neither names a host and a port."""
    if settings.dashboard_url is not None:
        return Dashboard(url=f"{settings.dashboard_url.rstrip('/')}/", window=window)
    host = f"[{settings.page_host}]" if ":" in settings.page_host else settings.page_host
    known = settings.page_port and not _is_everywhere(settings.page_host)
    return Dashboard(url=f"http://{host}:{settings.page_port}/" if known else "/", window=window)


def linking(publish: Publish, dashboard: Dashboard) -> Publish:
    """`publish`, with links in each alert."""
    return lambda alerts: publish([dashboard.linked(alert) for alert in alerts])


def _is_everywhere(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
