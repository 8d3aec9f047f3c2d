"""The links in alerts lead to the dashboard: to the window that was judged last, and to the report."""

from datetime import timedelta
from urllib.parse import parse_qs

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from monitors.alerts import Alert, WindowSpan
from monitors.links import Dashboard, dashboard_of, linking
from stream_trainer.settings import MonitorSettings

from .worlds import START, alert

MINUTES = timedelta(minutes=5)
DASHBOARD = Dashboard(url="https://monitor.example/flights/", window=MINUTES)


@given(st.text(st.characters(codec="utf-8"), max_size=300), st.text(st.characters(codec="utf-8"), max_size=300))
def test_a_link_names_the_newest_window_whatever_feature_and_segment_are_called(feature: str, segment: str) -> None:
    plot = DASHBOARD.linked(alert(feature=feature, segment=segment)).plot
    assert plot is not None
    page, _, asked = plot.partition("#cell?")
    assert page == DASHBOARD.url
    assert plot.isascii()
    found = parse_qs(asked, keep_blank_values=True, strict_parsing=True)
    assert found == {"start": ["2026-01-01T00:15:00Z"], "feature": [feature], "segment": [segment]}


@pytest.mark.parametrize("remembered", ["drift-x.html", "/var/data/reports/flights/drift-x.html"])
def test_a_report_is_linked_as_the_dashboard_serves_it_however_it_was_remembered(remembered: str) -> None:
    linked = DASHBOARD.linked(alert(report=remembered))
    assert linked.report == "https://monitor.example/flights/reports/drift-x.html"
    assert DASHBOARD.linked(linked) == linked
    moved = Dashboard(url="/", window=MINUTES).linked(linked)
    assert (moved.report, str(moved.plot)[:8]) == ("/reports/drift-x.html", "/#cell?s")


def test_what_the_clock_says_has_no_cell_and_no_report() -> None:
    published: list[Alert] = []
    now = WindowSpan(start=START, end=START, rows=0)
    linking(published.extend, DASHBOARD)([alert(alert_key="silence", kind="silence", feature="", window=now), alert()])
    assert [one.plot is None for one in published] == [True, False]
    assert [one.report for one in published] == [None, None]
    assert msgspec.structs.replace(published[1], plot=None) == alert()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:8002/"),
        ({"page_host": "::1", "page_port": 9000}, "http://[::1]:9000/"),
        ({"page_host": "monitor.internal"}, "http://monitor.internal:8002/"),
        ({"page_host": "::"}, "/"),
        ({"page_port": 0}, "/"),
        ({"page_port": "none"}, "/"),
        ({"page_port": "none", "dashboard_url": "https://monitor.example"}, "https://monitor.example/"),
        ({"page_host": "::", "dashboard_url": "https://monitor.example/a/"}, "https://monitor.example/a/"),
    ],
)
def test_links_lead_where_the_settings_say_else_where_this_machine_serves_it(
    given: dict[str, object], url: str
) -> None:
    assert dashboard_of(MonitorSettings.model_validate(given), MINUTES).url == url


@pytest.mark.parametrize("url", ["monitor.example", "javascript:alert(1)", "https://a/#b", "https://a b/", "https://"])
def test_what_is_no_address_of_a_page_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        MonitorSettings(dashboard_url=url)
