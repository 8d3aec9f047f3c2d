"""The report's page in a real Chromium, from the disk and without a network."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from stream_trainer.contract import Task
from stream_trainer.reporting.curves import read
from stream_trainer.reporting.page import page as rendered
from tests.core.scored import scored_store
from tests.core.worlds import NOW

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# What of a plot lies outside of its own box, and which titles of axes its numbers cover.
OUTSIDE = """() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
  const box = plot.getBoundingClientRect();
  return [...plot.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()])
    .filter(([, r]) => r.width && (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1))
    .map(([text]) => text);
})"""


@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 420)])
def test_the_page_draws_offline_in_light_and_dark_and_on_a_phone(
    browser: "Browser", tmp_path: Path, task: Task, scheme: Literal["light", "dark"], width: int
) -> None:
    found = read(scored_store(tmp_path / "models", task))
    file = tmp_path / "report.html"
    file.write_text(rendered(found, NOW), "utf-8")
    wrong: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        page.wait_for_selector(f"html[data-drawn={scheme}]", state="attached")
        plots = page.locator(".plot")
        assert plots.count() == (10 if task == "binary" else 4)
        assert page.locator(".plot .main-svg").count() >= plots.count()
        assert page.title() == "flights, version 5: evaluation"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OUTSIDE) == []
        assert served_loss(page) == pytest.approx(
            [found.points[i].score("served", "model", found.metrics[0]) for i in range(1, 5)]
        )
        other: Literal["light", "dark"] = "dark" if scheme == "light" else "light"
        page.emulate_media(color_scheme=other)
        page.wait_for_selector(f"html[data-drawn={other}]", state="attached")
    assert not wrong


def served_loss(page: Any) -> list[float]:
    """What is drawn as the model's line of the first served panel."""
    lines = page.evaluate(
        "document.getElementById('curve-0-1').data.filter((trace) => trace.name === 'model').map((t) => t.y)"
    )
    return [value for value in lines[0] if value is not None]
