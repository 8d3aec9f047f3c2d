"""The monitor's dashboard in a real Chromium: drawn, walked by keyboard, live, and harmless whatever the data says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from monitors.explaining import Explainer
from monitors.findings import Distinct, Effect, Finding, State
from monitors.history import Curve, History, WindowRecord
from monitors.links import Dashboard
from monitors.page.board import Board
from monitors.page.server import bound, served
from monitors.page.sources import ShownAlert, Sources, Span
from monitors.reports import Outcome
from stream_trainer.store.storage import LocalStorage
from tests.monitors import worlds
from tests.monitors.histories import DASHBOARD, QUIET, START, WINDOW, Past, as_shown, sources
from tests.monitors.test_batch import KEY, World

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
PAST = Past(windows=QUIET + 12, segments=("origin=EWR",))
OUTSIDE = """() => [...document.querySelectorAll(".plot:not([hidden])")].flatMap((plot) => {
  const box = plot.getBoundingClientRect();
  return [...plot.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()])
    .filter(([, r]) => r.width && (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1))
    .map(([text]) => text);
})"""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return sources(tmp_path_factory.mktemp("history"), PAST)


@contextmanager
def shown(found: Sources) -> Iterator[tuple[Board, str]]:
    """A dashboard that looks only when it is told to."""
    with bound("127.0.0.1", 0) as address, served(address, found, every=3600) as board:
        board.refresh()
        yield board, address.url


def drawn(page: "Page", url: str) -> None:
    page.goto(url)
    for part in ("windows", "alerts", "versions", "freshness"):
        page.wait_for_selector(f"html[data-drawn{part}]", state="attached")


def focused(page: "Page") -> str:
    return str(page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"))


def test_the_heat_map_is_drawn_and_says_what_it_shows(page: "Page", known: Sources) -> None:
    with shown(known) as (_, url):
        drawn(page, url)
        assert page.title() == "(2) flights · monitor"
        assert page.locator("#live").inner_text() == "live"
        rows = page.locator("#heat tbody tr")
        assert rows.count() == 12
        assert rows.locator("th").all_inner_texts()[:3] == ["distance", "dep_hour", "temp"]
        temp = rows.filter(has_text="temp").locator("td")
        assert temp.count() == page.locator("#heat tbody tr").first.locator("td").count() > 30
        assert rows.filter(has_text="temp").locator("td.alarm").count() >= 10
        assert rows.filter(has_text="distance").locator("td.alarm").count() == 0
        assert page.locator("#heat td.few").count() > 0
        label = temp.last.get_attribute("aria-label") or ""
        assert label.startswith("temp, all rows, ")
        assert "alarm, PSI " in label
        assert page.locator("#learning .main-svg").count() > 0
        assert page.locator("#versions .main-svg").count() > 0
        assert "champion 44" in page.locator("#versions-now").inner_text()
        assert "4 min ago" in page.locator("#ages").inner_text()
        assert page.locator("#ages dd.bad").inner_text() == "9 h 0 min ago"


def test_a_cell_is_opened_by_the_keyboard_and_left_again(page: "Page", known: Sources) -> None:
    with shown(known) as (_, url):
        drawn(page, url)
        page.locator("#later").focus()
        page.locator("#heat td[tabindex='0']").focus()
        assert focused(page).startswith("distance, ")
        for key in ("Home", "ArrowDown", "ArrowDown", "End", "ArrowLeft"):
            page.keyboard.press(key)
        before = focused(page)
        assert before.startswith("temp, all rows, ")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert float(outline.removesuffix("px")) >= 2
        page.keyboard.press("Enter")
        page.wait_for_selector("#histogram .main-svg")
        assert page.locator("#cell-title").inner_text() == "temp · all rows"
        assert focused(page) == "cell-title"
        names = page.evaluate("document.getElementById('histogram').data.map((trace) => trace.name.split(' (')[0])")
        assert names == ["this window", "learned", "baseline"]
        shares = page.evaluate("document.getElementById('histogram').data.map((t) => t.y.reduce((a, b) => a + b))")
        assert shares == pytest.approx([1, 1, 1])
        finding = page.locator("#findings .alarm").first.inner_text()
        for word in ("drift", "p-value", "PSI", "Rows", "Since", "against"):
            assert word in finding
        assert page.locator("#bins tr").count() == 18
        assert "flights.predictions, partition 0" in (page.locator("#cell-offsets").text_content() or "")
        page.locator("#cell-previous").click()
        page.wait_for_function("() => document.getElementById('cell-when').textContent.includes('06:00 to 12:00')")
        page.keyboard.press("Escape")
        assert page.locator("#cell").is_hidden()
        assert focused(page) == before


def test_a_window_that_closes_is_drawn_without_a_reload_and_keeps_the_place(page: "Page", tmp_path: Path) -> None:
    history = History(LocalStorage(tmp_path))
    with shown(Sources(pipeline="flights", history=history)) as (board, url):
        drawn(page, url)
        assert "No window has closed yet" in page.locator("#heat-empty").inner_text()
        assert "No alert so far" in page.locator("#alerts-empty").inner_text()
        assert "train" in page.locator("#versions-empty").inner_text()
        assert "No score yet" in page.locator("#learning-empty").inner_text()
        for index in (QUIET, QUIET + 1):
            history.add(PAST.record(index))
            board.refresh()
            page.wait_for_function(
                "(n) => document.querySelector('#heat tbody tr')?.querySelectorAll('td').length === n",
                arg=index - QUIET + 1,
            )
        page.locator("#heat td[tabindex='0']").focus()
        place = focused(page)
        history.add(PAST.record(QUIET + 2))
        board.sources = replace(
            board.sources,
            alerts=lambda: [
                ShownAlert(
                    alert_key="silence", kind="silence", status="opened", severity="critical", message="nobody asks"
                )
            ],
        )
        board.refresh()
        page.wait_for_function("() => document.querySelector('#heat tbody tr').querySelectorAll('td').length === 3")
        page.wait_for_function("() => document.querySelector('#alerts').textContent.includes('nobody asks')")
        assert focused(page) == place
        assert page.title() == "(1) flights · monitor"


def test_a_cell_says_how_many_different_values_there_were_and_tells_versions_apart(
    page: "Page", tmp_path: Path
) -> None:
    history, record = History(LocalStorage(tmp_path)), PAST.record(QUIET)

    def found(segment: str = "", rows: int = 900, state: State = "quiet", distinct: Distinct | None = None) -> Finding:
        return Finding(
            kind="drift",
            feature="temp",
            segment=segment,
            against="learned",
            state=state,
            effect=Effect(psi=0.3),
            p_value=0.25,
            rows=rows,
            reference_rows=4_000,
            distinct=distinct,
        )

    findings = [
        found(distinct=Distinct(values=1234.4, error=0.0325)),
        found("_version=9", 600),
        found("_version=10", 300, "drift"),
    ]
    history.add(msgspec.structs.replace(record, findings=findings, versions=(9, 10)))
    alert = ShownAlert(
        alert_key="quality/learned/temp", kind="quality", status="opened", severity="warning", message="gone", feature="temp",
        features=["temp", "dewp", "visib"],
    )  # fmt: skip
    with shown(Sources(pipeline="flights", history=history, alerts=lambda: [alert])) as (_, url):
        drawn(page, url)
        page.locator("#heat tbody tr", has_text="temp").locator("td").first.click()
        page.wait_for_selector("#cell-versions:not([hidden])")
        assert "About 1,234 different values" in page.locator("#cell-distinct").inner_text()
        assert "3.25 %" in page.locator("#cell-distinct").inner_text()
        rows = page.locator("#by-version tr").all_inner_texts()
        assert [row.split()[0] for row in rows] == ["Version", "10", "9"]
        assert rows[1].split("\t") == ["10", "Values", "300", "4,000", "0.3", "0.25", "drift"]
        assert "answered by versions 9 to 10" in page.locator("#cell-when").inner_text()
        page.locator("#alerts summary").click()
        assert "temp and 2 more" in page.locator("#alerts .alert-what").inner_text()
        assert "temp, dewp, visib" in page.locator("#alerts .facts").inner_text()


def test_the_links_and_the_ranking_of_a_real_alert_lead_to_its_cell_and_its_report(
    page: "Page", tmp_path: Path
) -> None:
    world = World(tmp_path)
    watched, of = worlds.pipeline("flights"), worlds.settings(tmp_path)
    store = worlds.store_with_reference(of, "flights", world.rng, worlds.taught(watched, world.rng))
    monitor = world.start(explain=Explainer(watched, store, lambda _: None))
    for number, shift in enumerate([0.0, 1.5, 1.5]):
        monitor.run(number, world.batch(worlds.WINDOW_ROWS, shift=shift))
    [job] = world.reports.asked
    world.reports.outcome = Outcome(job, True, "")
    monitor.run(3, world.batch(1))
    newest = {one.alert_key: one for one in world.published}
    board = Dashboard(url="/", window=worlds.WINDOW)
    found = Sources(
        pipeline="flights",
        history=History(LocalStorage(tmp_path / "checkpoint")),
        alerts=lambda: [as_shown(one, board) for one in newest.values()],
        report=lambda name: b"<title>made</title>" if name == job.out.name else None,
    )
    with shown(found) as (_, url):
        linked = Dashboard(url=url, window=worlds.WINDOW).linked(newest[KEY])
        page.goto(str(linked.plot))
        page.wait_for_selector("#findings .alarm")
        assert page.locator("#cell-title").inner_text() == "distance · all rows"
        assert "00:00:05 to 00:00:10" in page.locator("#cell-when").inner_text()
        drawn(page, url)
        alert = page.locator("#alerts li", has=page.locator(f"details[data-key='{KEY}']"))
        alert.locator("summary").click()
        assert alert.locator(".ranking li").first.inner_text().split() == [
            "distance",
            f"{round(100 * newest[KEY].ranking[0][1])}",
            "%",
        ]
        assert "500 against 4,000" in alert.locator(".facts").inner_text()
        alert.get_by_role("link", name="Plot of this window").click()
        page.wait_for_selector("#findings .alarm")
        assert page.locator("#cell-title").inner_text() == "distance · all rows"
        page.goto(str(linked.report))
        assert page.title() == "made"


def test_a_cell_of_all_features_together_shows_no_single_one(page: "Page", known: Sources) -> None:
    with shown(known) as (_, url):
        page.goto(Dashboard(url=url, window=WINDOW).cell(START + (QUIET + 5) * WINDOW, "", ""))
        page.wait_for_selector("#findings li")
        assert page.locator("#cell-title").inner_text() == "all together · all rows"
        assert page.locator("#findings li").count() == 1
        assert "Concept" in page.locator("#findings").inner_text()


def hostile() -> WindowRecord:
    finding = Finding(
        kind="drift",
        feature=HOSTILE,
        segment="",
        against="learned",
        state="drift",
        p_value=1e-9,
        threshold=1e-5,
        effect=Effect(psi=0.4),
        rows=900,
        reference_rows=900,
        detail=HOSTILE,
    )
    curve = Curve(
        feature=HOSTILE,
        bins=[HOSTILE, "<a href='//evil.example'>x</a>"],
        window=[500, 400],
        baseline=[1, 2],
        learned=[4, 5],
    )
    return WindowRecord(
        start=START,
        end=START + WINDOW,
        rows=900,
        offsets={HOSTILE: {0: (1, 9)}},
        findings=[finding, msgspec.structs.replace(finding, segment=f"o={HOSTILE}")],
        curves=[curve],
        scores={HOSTILE: 0.5, "log_loss": 0.4},
    )


def test_names_and_messages_of_the_data_are_text(page: "Page", tmp_path: Path, known: Sources) -> None:
    history = History(LocalStorage(tmp_path))
    history.add(hostile())
    raised = ShownAlert(
        alert_key=HOSTILE,
        kind=HOSTILE,
        status="opened",
        severity=HOSTILE,
        message=HOSTILE,
        feature=HOSTILE,
        segment=f"o={HOSTILE}",
        opened_at=START,
        updated_at=START,
        window=Span(start=START, end=START + WINDOW),
        ranking=[(HOSTILE, 0.5)],
        offsets={HOSTILE: {0: (1, 9)}},
        plot=DASHBOARD.cell(START, HOSTILE, f"o={HOSTILE}").removeprefix("/"),
        report="a.html",
    )
    promoted = msgspec.structs.replace(known.versions().promotions[0], by=HOSTILE, reason=HOSTILE, alias=HOSTILE)
    versions = msgspec.structs.replace(known.versions(), promotions=[promoted])
    found = Sources(pipeline=HOSTILE, history=history, alerts=lambda: [raised], versions=lambda: versions)
    with shown(found) as (_, url):
        drawn(page, url)
        page.locator("#alerts summary").click()
        assert page.locator("#alerts .alert-message").inner_text() == HOSTILE
        page.get_by_role("link", name="Plot of this window").click()
        page.wait_for_selector("#histogram .main-svg")
        assert page.locator("#cell-title").inner_text() == f"{HOSTILE} · o={HOSTILE}"
        assert HOSTILE in page.locator("#findings").inner_text()
        assert page.evaluate("document.querySelectorAll('main img, main script, .plot a, iframe').length") == 0
        assert page.title().endswith("· monitor")
        assert page.locator("#heat tbody th").first.inner_text() == HOSTILE


def test_a_failing_source_is_told_and_what_was_known_stays(page: "Page", known: Sources) -> None:
    with shown(known) as (board, url):
        drawn(page, url)

        def broken() -> Any:
            raise OSError("<b>Kafka</b> does not answer")

        board.sources = replace(board.sources, alerts=broken)
        board.refresh()
        page.wait_for_selector("#problems:not([hidden])")
        assert (
            page.locator("#problems").inner_text() == "What is shown of alerts may be old: <b>Kafka</b> does not answer"
        )
        assert page.locator("#alerts .critical").count() == 1


def test_segments_kinds_and_longer_columns_can_be_chosen(page: "Page", known: Sources) -> None:
    with shown(known) as (_, url):
        drawn(page, url)
        page.locator("#by").select_option(label="segments of temp")
        page.wait_for_function(
            "() => [...document.querySelectorAll('#heat tbody th')].map((n) => n.textContent).join() === 'all rows,origin=EWR'"
        )
        page.locator("#by").select_option(label="features")
        page.locator("#kind").select_option(label="quality")
        page.wait_for_function(
            "() => document.querySelectorAll('#heat td.alarm').length > 0 && [...document.querySelectorAll('#heat tbody tr')].every((row) => row.textContent === 'visib' || !row.querySelector('.alarm'))"
        )
        page.locator("#per").select_option(label="16 windows")
        page.wait_for_function("() => document.querySelector('#heat tbody tr').querySelectorAll('td').length < 9")
        page.locator("#heat td.alarm").first.click()
        page.wait_for_selector("#findings .alarm")
        assert "visib" in page.locator("#cell-title").inner_text()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
def test_it_is_readable_in_light_and_dark_and_on_a_phone(
    browser: "Browser", known: Sources, scheme: Literal["light", "dark"], width: int
) -> None:
    wrong: list[str] = []
    with (
        shown(known) as (_, url),
        browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context,
    ):
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(url) else None)
        drawn(page, url)
        page.locator("#heat td.alarm").first.click()
        page.wait_for_selector(f"#histogram[data-drawn={scheme}]")
        page.locator("#alerts summary").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OUTSIDE) == []
        assert [float(ratio) for ratio in page.evaluate(CONTRAST) if ratio < 4.5] == []
        page.locator("#theme").click()
        other = "light"
        page.wait_for_selector(f"#learning[data-drawn={other}]")
        page.locator("#theme").click()
        page.wait_for_selector("#learning[data-drawn=dark]")
        page.reload()
        page.wait_for_selector("html[data-theme=dark]", state="attached")
    assert not wrong


# Contrast of texts with the nearest background behind them, as WCAG 2.2 computes it.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("h1, h2, h3, dt, dd, small, .note, .badge, .alert-what, .alert-message, .pill, button:not(:disabled), a:not(.skip), #heat th")]
    .filter((node) => node.offsetParent && node.textContent.trim())
    .map((node) => { const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); });
}"""


def test_the_stream_comes_back_after_the_monitor_was_started_again(page: "Page", known: Sources) -> None:
    with bound("127.0.0.1", 0) as address:
        url, port = address.url, address.listener.getsockname()[1]
        with served(address, known, every=3600) as board:
            board.refresh()
            drawn(page, url)
    page.wait_for_function("() => document.getElementById('live').textContent !== 'live'")
    assert page.locator("#heat td").count() > 0
    later = replace(known, alerts=list)
    with bound("127.0.0.1", port) as address, served(address, later, every=3600) as board:
        board.refresh()
        page.wait_for_function("() => document.getElementById('live').textContent === 'live'", timeout=20_000)
        page.wait_for_selector("#alerts-empty:not([hidden])")
