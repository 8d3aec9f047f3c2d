"""The rules and routes for Prometheus: accepted by its own tools, and run for real against metrics of ours.

Both programs come with Debian; without them these tests are skipped, but never where CI promises them.
"""

import json
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from infra.scraping import Metered, told
from monitors.findings import Effect, Finding
from monitors.gauges import PREFIX, OpenAlert
from monitors.status import Metrics
from stream_trainer.settings import (
    JoinSettings,
    MonitorSettings,
    ServingSettings,
    Settings,
    TrainerSettings,
    environment,
)
from tests.bench.processes import free_port

RULES = Path(__file__).parents[2] / "infra" / "prometheus"
DOCS = Path(__file__).parents[2] / "docs"
PATIENCE = (
    60.0  # of a wait for something that, when it never comes, gives no other sign; well below the limit of a test
)


def program(*names: str) -> str:
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None and environment().get("CI") == "true":
        pytest.fail(f"{names[0]} is not installed, but CI is true")
    if found is None:
        pytest.skip(f"{names[0]} is not installed: apt-get install prometheus prometheus-alertmanager")
    return found


def tool(*command: str) -> str:
    done = subprocess.run([program(command[0]), *command[1:]], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules_and_the_scrape_configuration() -> None:
    assert "rules found" in tool("promtool", "check", "rules", str(RULES / "rules.yml"))
    assert "SUCCESS" in tool("promtool", "check", "config", str(RULES / "prometheus.yml"))


def test_amtool_accepts_the_routes_and_leads_each_severity_to_its_receiver() -> None:
    config = str(RULES / "alertmanager.yml")
    assert "SUCCESS" in tool("amtool", "check-config", config)
    for severity, receiver in (("critical", "page"), ("warning", "team"), ("info", "nobody")):
        found = tool("amtool", "config", "routes", "test", f"--config.file={config}", f"severity={severity}")
        assert found.split() == [receiver]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_each_rule_fires_when_it_should_and_not_before() -> None:
    assert "SUCCESS" in tool("promtool", "test", "rules", str(RULES / "tests.yml"))
    cases = yaml.safe_load((RULES / "tests.yml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == {rule["alert"] for rule in rules()}


def test_a_rule_that_is_changed_fails_its_test(tmp_path: Path) -> None:
    changed = (RULES / "rules.yml").read_text().replace("behind_records > 20000", "behind_records > 60000")
    (tmp_path / "rules.yml").write_text(changed)
    shutil.copy(RULES / "tests.yml", tmp_path)
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(tmp_path / "tests.yml")], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"StreamTrainerMonitorBehind" in done.stdout + done.stderr


def test_each_series_that_a_rule_asks_for_is_one_that_is_told() -> None:
    metrics = Metrics()
    metrics.evaluated([Finding(kind="drift", feature="x", against="learned", state="drift")])
    asked = {name for rule in rules() for name in re.findall(rf"{PREFIX}_\w+", rule["expr"])}
    told = {s.name for f in metrics.registry.collect() for s in f.samples} | {
        f.name for f in metrics.registry.collect()
    }
    assert len(asked) > 8
    assert {name.removesuffix("_total") for name in asked} <= {name.removesuffix("_total") for name in told}
    names = {name for rule in rules() for name in re.findall(r"stream_trainer_(?:serving|trainer)_(\w+)", rule["expr"])}
    table = (DOCS / "telemetry.md").read_text()
    assert names
    for name in names:
        assert re.search(rf"^\| `…?{name.removesuffix('_total')}` \|", table, re.MULTILINE), name


def test_what_is_told_stands_in_the_documentation() -> None:
    metrics = Metrics()
    metrics.evaluated([], window_end=datetime(2026, 1, 1, tzinfo=UTC))
    listed = set(re.findall(r"^\| `\.\.\.(\w+)` \|", (DOCS / "monitoring.md").read_text(), re.MULTILINE))
    assert listed == {family.name.removeprefix(f"{PREFIX}_") for family in metrics.registry.collect()}


def scraped() -> dict[str, int]:
    """The port of each process as the scrape configuration has it."""
    jobs = yaml.safe_load((RULES / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"].removeprefix("stream-trainer-"): job["static_configs"][0]["targets"] for job in jobs}
    return {name: int(target.rpartition(":")[2]) for name, (target,) in targets.items()}


def test_each_process_that_tells_metrics_is_scraped_where_it_answers() -> None:
    sections: dict[str, Metered] = {
        "joiner": JoinSettings(),
        "monitor": MonitorSettings(),
        "trainer": TrainerSettings(),
    }
    told = [name for name, field in Settings.model_fields.items() if "metrics_port" in fields_of(field.annotation)]
    assert len(told) == len(sections), "a process more that tells metrics"
    ports = {name: section.metrics_port for name, section in sections.items() if section.metrics_port is not None}
    ports["serving"] = ServingSettings().port
    others = {ServingSettings().admin_port, MonitorSettings().page_port}
    found = scraped()
    assert set(found) == {*sections, "serving"}
    assert ports == {name: found[name] for name in ports}
    assert len(set(found.values()) - others) == len(found), "one port each, and none that tells no metrics"


@pytest.mark.parametrize("text", [RULES / "prometheus.yml", DOCS / "monitoring.md", DOCS / "telemetry.md"])
def test_who_has_no_port_by_itself_is_scraped_where_the_documentation_puts_it(text: Path) -> None:
    stated = re.findall(r"STREAM_TRAINER_(\w+)__METRICS_PORT=(\d+)", text.read_text())
    assert stated
    assert {(name.lower(), int(port)) for name, port in stated} <= scraped().items()


def test_the_documented_table_of_ports_is_what_is_scraped() -> None:
    rows = re.findall(r"^\| (\w+) \| `[\w.]+` \| \D*(\d{4})\b", (DOCS / "telemetry.md").read_text(), re.MULTILINE)
    assert {name.replace("service", "serving"): int(port) for name, port in rows} == scraped()


def fields_of(section: Any) -> set[str]:
    return set(getattr(section, "model_fields", ()))


# Both for real.


class Notified:
    """A receiver of Alertmanager's notifications."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self._changed = threading.Condition()

    def add(self, path: str, body: bytes) -> None:
        with self._changed:
            self.got.append((path, json.loads(body)))
            self._changed.notify_all()

    def wait(self, wanted: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [alert for path, body in self.got for alert in body["alerts"] if wanted(path, alert)]

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), self.got
            return found()[-1]

    def repeated(self) -> int:
        """How often who is paged was told that it burns, though the last thing heard was that it burns.

        A target that is too slow to be scraped ends its alerts, and they begin anew: that is told, and is no repetition.
        """
        told = [body["status"] for path, body in self.got if path == "/page"]
        return sum(before == after == "firing" for before, after in pairwise(told))


@contextmanager
def receiving(notified: Notified) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notified.add(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running(command: list[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        until(lambda: process.poll() is not None or answers(ready), log)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(true: Callable[[], bool], log: Path) -> None:
    tick = threading.Event()
    for _ in range(int(PATIENCE / 0.05)):
        if true():
            return
        tick.wait(0.05)
    pytest.fail(log.read_text())


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - of this test
            return bool(answer.status == 200)
    except OSError:
        return False


def alertmanager(folder: Path, port: int, receiver: int) -> list[str]:
    text = (RULES / "alertmanager.yml").read_text().replace("127.0.0.1:9095", f"127.0.0.1:{receiver}")
    config = yaml.safe_load(text)
    config["route"] |= {"group_wait": "10ms", "group_interval": "200ms"}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    return [
        program("prometheus-alertmanager", "alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]


def prometheus(folder: Path, port: int, *, target: int, manager: int) -> list[str]:
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "stream-trainer-monitor")
    config["scrape_configs"] = [job]
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{manager}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(RULES / "rules.yml", folder)
    return [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--rules.alert.resend-delay=200ms",
    ]


def told_by(port: int, name: str, **labels: str) -> float:
    """One of the program's own counters, added up over the series that have these labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    assert samples, name
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def posts(manager: int, which: str = "") -> float:
    return told_by(manager, f"alertmanager_notification_requests{which}_total", integration="webhook")


def delivered(manager: int) -> float:
    """Posts that Alertmanager has heard the answer to."""
    return posts(manager) - posts(manager, "_failed")


def scores_of(port: int) -> dict[str, float]:
    query = f"http://127.0.0.1:{port}/api/v1/query?query={PREFIX}_score"
    with urllib.request.urlopen(query, timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return {series["metric"]["score"]: float(series["value"][1]) for series in found}


def open_alert(severity: str = "critical") -> OpenAlert:
    return OpenAlert("drift/learned/distance", "drift", severity, "distance", "", "learned")


@contextmanager
def all_running(folder: Path, metrics: Metrics, notified: Notified) -> Iterator[tuple[int, int]]:
    """Both programs; the ports of Prometheus and of Alertmanager."""
    port, manager_port = free_port(), free_port()
    with (
        told(metrics.registry, "monitor", MonitorSettings(metrics_port=0)) as target,
        receiving(notified) as receiver,
    ):
        assert target is not None
        managing = alertmanager(folder, manager_port, receiver)
        watching = prometheus(folder, port, target=target, manager=manager_port)
        with (
            running(managing, folder / "alertmanager.log", f"http://127.0.0.1:{manager_port}/-/ready"),
            running(watching, folder / "prometheus.log", f"http://127.0.0.1:{port}/-/ready"),
        ):
            yield port, manager_port


def test_an_alert_of_the_monitor_goes_through_prometheus_and_alertmanager_to_who_is_paged(tmp_path: Path) -> None:
    metrics, notified = Metrics(), Notified()
    metrics.evaluated(
        [Finding(kind="drift", feature="distance", against="learned", state="drift", effect=Effect(psi=0.5), rows=500)]
    )
    with all_running(tmp_path, metrics, notified) as (port, manager):
        metrics.standing([open_alert(), OpenAlert("drift/baseline/hour", "drift", "info", "hour", "", "baseline")])
        said = notified.wait(lambda path, alert: alert["status"] == "firing" and path == "/page")
        # Alertmanager gives a post ten seconds, fixed in it. One that is answered later is made again, but never when the
        # alert has ended meanwhile: nor is its end told then, because to Alertmanager nobody knows that it began.
        until(lambda: delivered(manager) >= 1, tmp_path / "alertmanager.log")
        received = partial(told_by, manager, "alertmanager_alerts_received_total", status="firing")
        often = received() + 4  # two alerts, each evaluated and sent twice more
        until(lambda: received() >= often, tmp_path / "prometheus.log")
        until(lambda: scores_of(port) == {"p_value": 1.0, "psi": 0.5}, tmp_path / "prometheus.log")
        metrics.standing([])
        notified.wait(lambda path, alert: alert["status"] == "resolved" and path == "/page")
        failed = posts(manager, "_failed")
    assert said["labels"]["alertname"] == "StreamTrainerDrift"
    assert said["labels"]["alert_key"] == "drift/learned/distance"
    assert (said["labels"]["pipeline"], said["labels"]["severity"]) == ("flights", "critical")
    assert said["annotations"]["summary"] == "flights: drift/learned/distance is open"
    assert {path for path, _ in notified.got} == {"/page"}
    assert all("hour" not in json.dumps(body) for _, body in notified.got), "information pages nobody"
    assert notified.repeated() <= failed, "one notification, however often it is scraped and evaluated"
