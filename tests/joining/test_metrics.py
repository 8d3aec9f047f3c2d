"""What the joiner tells Prometheus, and that the documentation lists all of it."""

import re
from pathlib import Path

import httpx
import pytest

from infra.joining import served_metrics
from stream_trainer.joining.commits import Written, plan
from stream_trainer.joining.matching import OUTCOMES, load
from stream_trainer.joining.metrics import PREFIX, Metrics
from stream_trainer.joining.recovery import Marker
from stream_trainer.settings import JoinSettings
from tests.joining.test_matching import HORIZON, joining, label, prediction

ROOT = Path(__file__).parents[2]


def test_outcomes_delays_and_what_waits_are_told() -> None:
    rules = joining(on_timeout=False)
    metrics = Metrics(clock=lambda: 5.0)
    out = [e for name in "abcd" for e in rules.take(load(None), [prediction(name, 500)])]
    state = load(None)
    out += rules.take(state, [prediction("e", 0), label("e", 300, True, 1), label("e", 301, True, 2)])
    out += rules.take(state, [label("e", 302, False, 3)])
    silent = load(None)
    out += rules.take(silent, [prediction("f", 0)])
    out += rules.expire(silent, HORIZON + 1)
    marker = Marker(query_id="q", batch_id=0, next_offsets={}, digest="", at=0, compare_from={})
    metrics.wrote(marker, plan(marker, out, Written(), {}))
    told = {outcome: metrics._counted(outcome) for outcome in OUTCOMES if metrics._counted(outcome)}
    assert told == {"joined": 1, "duplicate": 1, "corrected": 1, "timeout": 1, "expired": 1}
    sample = metrics.registry.get_sample_value
    assert sample(f"{PREFIX}_waiting") == 4
    assert sample(f"{PREFIX}_oldest_waiting_seconds") == pytest.approx(4.5, abs=HORIZON / 60_000)
    assert sample(f"{PREFIX}_match_rate") == 0.5
    assert sample(f"{PREFIX}_join_delay_seconds_sum") == pytest.approx(0.602)
    assert sample(f"{PREFIX}_join_delay_seconds_count") == 2


def test_they_are_answered_over_http_and_a_taken_port_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with served_metrics(JoinSettings(metrics_port=0)) as metrics:
        assert metrics is not None
        metrics.sized(3, 4)
        url = re.findall(r"http://\S+", caplog.text)[-1]
        assert f"{PREFIX}_state_bytes 3.0" in httpx.get(url, timeout=10, trust_env=False).text
        port = int(url.split(":")[2].split("/")[0])
        with served_metrics(JoinSettings(metrics_port=port)) as second:
            assert second is None
        assert f"no metrics on port {port}" in caplog.text
    with served_metrics(JoinSettings(metrics_port=None)) as none:
        assert none is None


def test_the_documentation_lists_every_metric() -> None:
    text = (ROOT / "docs" / "joining.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE))
    metrics = [value for value in vars(Metrics()).values() if hasattr(value, "_labelnames")]
    assert listed == {(m._name.removeprefix(f"{PREFIX}_"), m._type) for m in metrics}
    assert all(f"`{outcome}`" in text for outcome in OUTCOMES)
