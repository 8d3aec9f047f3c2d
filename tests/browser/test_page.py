"""What a person sees: real Chromium, a real server, real versions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.app import create_app
from serving.keys import KeyRing
from serving.page.state import Process
from serving.ways import Ways
from stream_trainer.api_keys import change_keys
from stream_trainer.contract import Categorical, ClassLabel, Contract, Numeric, Vector
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.security.callers import all_kinds
from tests.serving.fixtures import PIPELINE, ROWS, Harness, commit_version, golden, learned_state, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "<script>document.title='taken'</script>"
NASTY = Contract(
    features=[
        Numeric(HOSTILE, low=0, high=10),
        Numeric("constructor", optional=True),
        Categorical("colour", vocabulary=["<b>red</b>", "blue"]),
        Categorical("shop", buckets=8, optional=True),
        Vector("embedding", 3),
    ],
    label=ClassLabel("<i>kind</i>", classes=["<img src=x onerror=alert(1)>", "b", "c"]),
    key="customer",
    event_time="at",
    segments=["region"],
)
NASTY_PIPELINE = Pipeline(name="nasty", contract=NASTY)
NASTY_ROWS: list[dict[str, Any]] = [
    {
        HOSTILE: float(i),
        "constructor": None,
        "colour": ["blue", "<b>red</b>", "green"][i % 3],
        "shop": "<u>x</u>",
        "embedding": [0.5, float(i), -1.0],
        "region": "<s>north</s>",
        "customer": "a person",
        "at": "2026-01-01T10:00:00Z",
    }
    for i in range(6)
]
SHIFTS = """() => { window.shifts = [];
new PerformanceObserver((list) => list.getEntries().forEach((e) => { if (!e.hadRecentInput) window.shifts.push([e.value, ...e.sources.map((s) => s.node?.parentElement?.id + "/" + (s.node?.id || s.node?.className || s.node?.textContent))]); }))
.observe({ type: "layout-shift", buffered: true }); }"""


@contextmanager
def served(
    folder: Path,
    pipeline: Pipeline = PIPELINE,
    *,
    versions: int = 1,
    keys: KeyRing | None = None,
    worker: Process | None = None,
    **settings: Any,
) -> Iterator[tuple[Harness, str]]:
    """A service of a pipeline with so many versions behind its own gate, and its address."""
    harness = Harness(ModelStore(LocalStorage(folder), pipeline.name), pipeline, **settings)
    app = create_app(
        pipeline,
        harness.settings,
        log=harness.log,
        follower=harness.follower,
        metrics=harness.metrics,
        store=harness.store,
        clock=harness.clock,
        address="shop.churn:pipeline",
        worker=worker,
    )
    ways = Ways(serving=harness.settings.serving, keys=keys, metrics=harness.metrics, tls=None)
    for number in range(versions):
        learn(harness, number)
    with serving(ways.public_gate(app)) as client:
        yield harness, str(client.base_url)


def learn(harness: Harness, seed: int = 0) -> None:
    rows = ROWS if harness.pipeline is PIPELINE else NASTY_ROWS
    state = learned_state(harness.pipeline, seed, rows)
    files = {"golden.arrow": golden(harness.pipeline, state, rows)}
    offsets = {f"{harness.pipeline.name}.examples": {0: 40 + seed, 1: 2}}
    commit_version(harness.store, harness.pipeline, state, files=files, next_offsets=offsets)
    harness.clock.advance(2)
    harness.follower.look()


def has(page: "Page", where: str, text: str) -> None:
    """Wait until an element's text holds this."""
    page.wait_for_function(
        "([where, text]) => document.querySelector(where)?.textContent.includes(text)", arg=[where, text]
    )


def test_it_shows_what_serves_and_follows_a_swap_without_a_reload(page: "Page", tmp_path: Path) -> None:
    with served(tmp_path, versions=3) as (harness, url):
        harness.metrics.refused.labels("not_finite").inc()
        harness.metrics.log_dropped.labels("queue_full").inc(7)
        page.goto(url)
        has(page, "#version", "3")
        has(page, "#health", "serving")
        has(page, "#learned", "24")
        has(page, "#through", "2013-02-01")
        has(page, "#refused", "refused: not finite")
        has(page, "#log-dropped", "7")
        has(page, "#offsets", "flights.examples: 0 → 42, 1 → 2")
        learn(harness, 3)
        has(page, "#version", "4")
        has(page, "#timeline tr:first-child", "32")
        assert page.locator("#swap-bars rect").count() == 4
        page.request.post(f"{url}/predict", data="{")
        has(page, "#errors", "invalid json")


def test_the_form_of_the_contract_is_filled_with_golden_rows_and_answered(page: "Page", tmp_path: Path) -> None:
    with served(tmp_path) as (harness, url):
        page.goto(url)
        page.wait_for_selector("#f0")
        assert page.get_by_label("distance").input_value() == "0"
        assert page.get_by_label("distance").get_attribute("min") == "0"
        assert page.get_by_label("carrier").evaluate("node => node.tagName") == "SELECT"
        assert page.get_by_label("flight_id").input_value() == ""
        page.get_by_label("distance").focus()
        page.keyboard.press("Control+A")
        page.keyboard.type("812.5")
        page.keyboard.press("Enter")
        has(page, "#answer code", "stream-trainer lineage shop.churn:pipeline ")
        answered = harness.log.answered[-1]
        assert getattr(answered.rows[0], "f0") == 812.5  # noqa: B009 - its fields are made at run time
        assert page.locator("#answer code").inner_text().endswith(answered.ids[0])
        has(page, "#answer", "Round trip")
        page.get_by_role("button", name="Another example").click()
        assert page.get_by_label("distance").input_value() == "100"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("distance", "-1", ">= 0"), ("distance", "", "this is needed"), ("scheduled_at", "yesterday", "datetime")],
)
def test_an_error_stands_beside_its_field(page: "Page", tmp_path: Path, field: str, value: str, message: str) -> None:
    with served(tmp_path) as (_, url):
        page.goto(url)
        page.wait_for_selector("#f0")
        page.get_by_label(field).fill(value)
        page.locator("#send").click()
        page.wait_for_selector("[aria-invalid=true]")
        wrong = page.get_by_label(field)
        assert wrong.get_attribute("aria-invalid") == "true"
        assert wrong.evaluate("node => node === document.activeElement")
        note = page.locator(f"#{wrong.get_attribute('aria-describedby')}")
        assert message in note.inner_text()
        page.get_by_role("button", name="Another example").click()
        page.locator("#send").click()
        has(page, "#answer", "Round trip")
        assert page.locator("[aria-invalid]").count() == 0


def test_names_of_the_contract_are_text_whatever_they_hold(page: "Page", tmp_path: Path) -> None:
    with served(tmp_path, NASTY_PIPELINE) as (harness, url):
        page.goto(url)
        page.wait_for_selector("#f0")
        assert page.locator("label").first.inner_text() == HOSTILE
        assert page.get_by_label("embedding").input_value() == "0.5, 0, -1"
        assert page.get_by_label("region").input_value() == "<s>north</s>"
        page.get_by_label("constructor").fill("4")
        page.locator("#send").click()
        has(page, "#answer", "<img src=x")
        assert getattr(harness.log.answered[-1].rows[0], "f1") == 4.0  # noqa: B009 - as above
        page.get_by_label("embedding").fill("1, two, 3")
        page.locator("#send").click()
        has(page, "#f4-note", "“two” is not a number")
        page.get_by_label("embedding").fill("1, 2")
        page.locator("#send").click()
        has(page, "#f4-note", "length")
        assert page.locator("main :is(script, img, b > *, i, s, u)").count() == 0
        assert "taken" not in page.title()


def test_without_a_version_it_says_so_and_fills_the_form_when_one_comes(page: "Page", tmp_path: Path) -> None:
    with served(tmp_path, versions=0) as (harness, url):
        page.goto(url)
        has(page, "#health", "no version yet")
        has(page, "#version", "none")
        page.get_by_label("distance").fill("1")
        page.get_by_label("carrier").select_option("AA")
        page.locator("#send").click()
        has(page, "#answer", "no version")
        has(page, "#answer code", harness.log.answered[-1].ids[0])
        page.reload()
        has(page, "#version", "none")
        learn(harness)
        has(page, "#version", "1")
        page.wait_for_function("() => document.querySelector('#f0').value === '0'")


def give_key(page: "Page", text: str) -> None:
    page.get_by_label("Key with the scope").fill(text)
    page.keyboard.press("Enter")


def test_a_key_is_asked_for_and_kept_in_the_tab_only(page: "Page", tmp_path: Path) -> None:
    callers = all_kinds(tmp_path / "keys.json")
    with served(tmp_path / "models", keys=callers.ring()) as (harness, url):
        page.goto(url)
        page.wait_for_selector("dialog[open]")
        has(page, "#health", "an API key is needed")
        give_key(page, "wrong")
        has(page, "#key-reason", "does not accept")
        page.wait_for_selector("dialog[open]")
        give_key(page, callers.texts["predict"])
        has(page, "#version", "1")
        page.locator("#send").click()
        has(page, "#answer", "Round trip")
        assert len(harness.log.answered) == 1
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.reload()
        has(page, "#version", "1")


@pytest.mark.parametrize("kind", ["admin", "feedback"])
def test_a_key_without_the_scope_may_neither_look_nor_ask(page: "Page", tmp_path: Path, kind: str) -> None:
    callers = all_kinds(tmp_path / "keys.json")
    with served(tmp_path / "models", keys=callers.ring()) as (harness, url):
        page.goto(url)
        page.wait_for_selector("dialog[open]")
        give_key(page, callers.texts[kind])
        has(page, "#health", "this key may not look")
        assert not page.locator("#version").inner_text().isdecimal()
        assert harness.metric("refused_requests_total", reason="forbidden") > 0
        page.get_by_role("button", name="API key").click()
        give_key(page, callers.texts["predict"])
        has(page, "#version", "1")


def test_a_key_that_is_revoked_is_asked_for_again(page: "Page", tmp_path: Path) -> None:
    callers = all_kinds(tmp_path / "keys.json")
    ring = callers.ring()
    with served(tmp_path / "models", keys=ring) as (_, url):
        page.goto(url)
        page.wait_for_selector("dialog[open]")
        give_key(page, callers.texts["predict"])
        has(page, "#version", "1")
        revoked = callers.keys["predict"].id
        change_keys(callers.path, lambda keys: tuple(key for key in keys if key.id != revoked))
        ring.look()
        has(page, "#key-reason", "does not accept")
        has(page, "#health", "an API key is needed")
        assert page.locator("body.stale").count() == 1


@pytest.mark.parametrize("width", [360, 1280])
def test_of_several_workers_it_says_whose_numbers_it_shows(page: "Page", tmp_path: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    with served(tmp_path, worker=Process(number=2, count=16)) as (_, url):
        page.goto(url)
        for where in ("#traffic-window", "#latency-window", "#swaps-window"):
            has(page, where, "worker 2 of 16")
            assert "/metrics" in (page.locator(where).get_attribute("title") or "")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(CUT_OFF) == []


def test_a_service_that_does_not_answer_is_shown_as_such(page: "Page", tmp_path: Path) -> None:
    with served(tmp_path) as (_, url):
        page.goto(url)
        has(page, "#health", "serving")
        page.route("**/page/state", lambda route: route.abort())
        has(page, "#health", "no answer since")
        assert page.locator("body.stale").count() == 1
        page.unroute("**/page/state")
        has(page, "#health", "serving")


@pytest.mark.parametrize("width", [360, 800, 1360])
@pytest.mark.parametrize("versions", [0, 2])
def test_nothing_moves_or_overflows(page: "Page", tmp_path: Path, width: int, versions: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.add_init_script(f"({SHIFTS})()")
    with served(tmp_path, versions=versions) as (harness, url):
        page.goto(url)
        page.wait_for_selector("#f0")
        learn(harness, 1)
        has(page, "#version", str(versions + 1))
        page.request.post(f"{url}/predict", data="{")
        has(page, "#errors", "invalid json")
        assert page.evaluate("window.shifts") == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(CUT_OFF) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_controls_have_names(page: "Page", tmp_path: Path, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    with served(tmp_path) as (_, url):
        page.goto(url)
        page.wait_for_selector("#f0")
        has(page, "#version", "1")
        page.wait_for_function("() => document.getAnimations().length === 0")
        assert page.evaluate(CONTRAST) == []
        nameless = "[...document.querySelectorAll('input, select, textarea')].filter((n) => !n.labels.length).length"
        assert page.evaluate(nameless) == 0
        assert page.locator("svg:not([aria-label])").count() == 0


CUT_OFF = """() => [...document.querySelectorAll("h1, .pill, dd:not(.note)")]
  .filter((n) => n.scrollWidth > n.clientWidth).map((n) => n.id + ": " + n.textContent)"""

# Texts whose contrast with what is behind them is below WCAG's 4.5 (3 for large ones).
CONTRAST = """() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return [m[0], m[1], m[2], m[3] ?? 1]; };
  const light = ([r, g, b]) => { const f = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = (n) => { for (; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor); if (c[3] === 1) return c; } };
  return [...document.querySelectorAll("body *")].filter((n) => n.checkVisibility() && [...n.childNodes].some((c) => c.nodeType === 3 && c.data.trim()))
    .map((n) => { const s = getComputedStyle(n), [a, b] = [light(parse(s.color)), light(behind(n))];
      return [n.tagName, n.id, n.textContent.slice(0, 20), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), parseFloat(s.fontSize) >= 24 ? 3 : 4.5]; })
    .filter(([, , , found, wanted]) => found < wanted);
}"""
