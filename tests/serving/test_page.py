"""What the page is told: rates, quantiles, the timeline and the form, by clocks that the test moves."""

import asyncio
import bisect
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.metrics import PREFIX, Metrics
from serving.page.form import Examples, form
from serving.page.routes import POLICY, STATIC
from serving.page.samples import MOST, Samples, quantile
from serving.page.state import PageState
from serving.page.swaps import MOST as MOST_SWAPS
from stream_trainer.store import ModelStore
from stream_trainer.store.store import GOLDEN
from tests.serving.fixtures import CONTRACT, PIPELINE, Harness, app_of, commit_version, learned_state, serving

ROOT = Path(__file__).parents[2]


class Monotonic:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def page(harness: Harness, monotonic: Monotonic) -> PageState:
    return PageState(PIPELINE.name, harness.follower, harness.metrics, harness.clock, monotonic)


def learn(harness: Harness) -> None:
    commit_version(harness.store, PIPELINE, learned_state())
    harness.follower.look()


def test_rates_are_over_the_last_minute(harness: Harness, page: PageState, monotonic: Monotonic) -> None:
    for _ in range(200):
        monotonic.now += 1.0
        harness.metrics.requests.labels("answered").inc(3)
        harness.metrics.requests.labels("too_deep").inc()
        harness.metrics.rows.inc(12)
        harness.metrics.request_seconds.observe(0.004)
        state = page.state()
    assert state.traffic.window_seconds == 60.0
    assert (state.traffic.requests_per_second, state.traffic.rows_per_second) == (4.0, 12.0)
    assert (state.traffic.requests, state.traffic.rows) == (800, 2400)
    (error,) = state.traffic.errors
    assert (error.reason, error.total, error.recent) == ("too_deep", 200, 60)
    assert len(state.traffic.series) == 120
    assert state.latency.p50_seconds == pytest.approx(0.00375)


def test_who_looks_once_in_a_while_sees_the_rate_since(page: PageState, harness: Harness, monotonic: Monotonic) -> None:
    harness.metrics.rows.inc(600)
    monotonic.now += 300
    state = page.state()
    assert (state.traffic.window_seconds, state.traffic.rows_per_second) == (300.0, 2.0)
    assert state.latency.p99_seconds is None


def test_what_is_kept_is_bounded_and_answers_are_shared(
    harness: Harness, page: PageState, monotonic: Monotonic
) -> None:
    samples = Samples(harness.metrics, monotonic)
    for _ in range(3 * MOST):
        monotonic.now += 0.5
        samples.take()
    assert len(samples.since(samples.take(), 1e9)) <= MOST + 1
    first = page.encoded()
    harness.metrics.rows.inc()
    assert page.encoded() is first
    monotonic.now += 0.5
    assert page.encoded() != first


def test_the_timeline_has_the_last_versions_and_how_long_each_took(harness: Harness, page: PageState) -> None:
    for _ in range(MOST_SWAPS + 3):
        harness.follower._monotonic = iter([harness.seconds, harness.seconds + 1, harness.seconds + 1.25]).__next__
        harness.clock.advance(1)
        learn(harness)
    swaps = page.state().swaps
    assert [swap.version for swap in swaps.timeline] == list(range(4, MOST_SWAPS + 4))
    assert {swap.seconds for swap in swaps.timeline} == {0.25}
    assert (swaps.count, swaps.last_seconds) == (MOST_SWAPS + 3, 0.25)
    served = page.state().served
    assert served is not None
    assert (served.number, served.rows.trained, served.since) == (MOST_SWAPS + 3, 8 * served.number, harness.clock())


def test_the_prediction_log_is_accounted_for(harness: Harness, page: PageState) -> None:
    metrics = harness.metrics
    metrics.log_queued.inc(10)
    metrics.log_sent.inc(6)
    metrics.log_dropped.labels("shutdown").inc(1)
    metrics.log_dropped.labels("queue_full").inc(5)
    log = page.state().log
    assert (log.sent, log.waiting, sum(one.total for one in log.dropped)) == (6, 3, 6)


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=50),
    st.lists(st.floats(0.01, 10), min_size=1, max_size=8, unique=True).map(sorted),
    st.floats(0.01, 1),
)
def test_a_quantile_lies_in_the_bucket_that_holds_it(values: list[float], upper: list[float], q: float) -> None:
    cumulative = [float(sum(value <= bound for value in values)) for bound in upper]
    found = quantile([*upper, float("inf")], [*cumulative, float(len(values))], q)
    assert found is not None
    place = next((i for i, count in enumerate(cumulative) if count >= q * len(values)), None)
    if place is None:
        assert found == upper[-1]
    else:
        assert bisect.bisect_left(upper, found * (1 - 1e-9)) in (place, place - 1)
        assert found <= upper[place] * (1 + 1e-9)


def test_golden_rows_fill_the_form_without_their_key_and_a_damaged_file_fills_nothing(harness: Harness) -> None:
    assert asyncio.run(Examples(CONTRACT, harness.store, harness.follower).rows()) == []
    learn(harness)
    rows = asyncio.run(Examples(CONTRACT, harness.store, harness.follower).rows())
    assert rows[1] == {
        "distance": 100.0,
        "pressure": 1001.0,
        "carrier": "UA",
        "origin": "JFK",
        "scheduled_at": "2026-01-01T10:00:00Z",
    }
    store = harness.store
    manifest = store.read(1).manifest
    path = f"{PIPELINE.name}/versions/{1:020d}/{manifest.attempt}/{GOLDEN}"
    assert store.storage.get(path)
    store.storage.delete(path)
    assert asyncio.run(Examples(CONTRACT, store, harness.follower).rows()) == []


def test_the_form_follows_the_contract() -> None:
    fields = {field.name: field for field in form(PIPELINE, None, []).fields}
    assert list(fields) == ["distance", "pressure", "carrier", "origin", "scheduled_at", "flight_id"]
    assert (fields["distance"].low, fields["distance"].high, fields["distance"].required) == (0, None, True)
    assert fields["carrier"].options == ("AA", "UA")
    assert (fields["carrier"].segment, fields["origin"].segment, fields["pressure"].required) == (True, True, False)
    assert form(PIPELINE, "a b:c", []).trace == "stream-trainer lineage 'a b:c'"


def test_files_are_shipped_and_may_do_little(store: ModelStore) -> None:
    harness = Harness(store, profile="production")
    learn(harness)
    app = app_of(harness)
    with serving(app) as client:
        for path, (_, media_type) in STATIC.items():
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(media_type)
            assert answer.headers["content-security-policy"] == POLICY
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|style=", answer.text)
        assert client.get("/page/state").json()["served"]["number"] == 1
        assert client.get("/page/contract").json()["examples"] == []


def test_the_documentation_lists_every_metric() -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text()
    listed = {
        name: (kind, tuple(re.findall(r"\w+", labels)))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\|", text, re.MULTILINE)
    }
    metrics = [value for value in vars(Metrics()).values() if hasattr(value, "_labelnames")]
    there = {m._name.removeprefix(f"{PREFIX}_"): (m._type, m._labelnames) for m in metrics}
    assert listed == there
    used = set(re.findall(rf"{PREFIX}_(\w+?)(?:_total|_bucket)?\b(?=[\[{{) ]|$)", text, re.MULTILINE)) - {""}
    assert used <= set(there)
