"""What a client gets into the log stays on its line."""

import io
import json
import logging
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.logs import MOST_CHARACTERS, MOST_TRACE, JsonFormatter, TextFormatter, log_as, printable
from tests.monitors.worlds import alert

NASTY = [
    "a\r\nERROR forged: line",
    "\x1b[2J\x1b[1;31mred",
    "\x9b31m",
    "\u2028\u2029\x85\x0b\x0c",
    "\x00\x08\x7f",
    "\ud800",
    "\u202egnp.exe",
]


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    trace = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("serving.x", logging.WARNING, __file__, 1, message, args, trace)


def raised(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_s15_a_message_is_one_line_of_printable_text(text: str, formatter: logging.Formatter) -> None:
    line = formatter.format(record("got %s", text))
    assert line.isprintable()
    assert len(line.splitlines()) == 1


@given(st.text())
def test_s15_json_gives_back_exactly_what_was_said_in_ascii(text: str) -> None:
    line = JsonFormatter().format(record("%s", text))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == (text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS])


@given(st.text())
def test_s15_text_is_printable_whatever_comes(text: str) -> None:
    assert printable(text).isprintable() or not text
    assert TextFormatter().format(record("%s", text)).isprintable()


def test_s15_a_json_line_says_when_how_bad_where_and_what() -> None:
    found = json.loads(JsonFormatter().format(record("n %d", 3, error=raised("x\ny"))))
    assert set(found) == {"time", "level", "logger", "message", "exception"}
    assert (found["level"], found["logger"], found["message"]) == ("WARNING", "serving.x", "n 3")
    assert found["time"].endswith("Z")
    assert "ValueError: x\ny" in found["exception"]


def test_s15_a_trace_in_text_cannot_pass_for_a_line_of_the_log() -> None:
    lines = (
        TextFormatter()
        .format(record("m", error=raised("x\n2026-01-01T00:00:00.000Z ERROR forged: y\x1b[")))
        .split("\n")
    )
    assert len(lines) > 3
    assert all(line.startswith("  | ") for line in lines[1:])
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("make", [JsonFormatter, TextFormatter])
def test_s15_huge_texts_are_cut(make: Callable[[], logging.Formatter]) -> None:
    line = make().format(record("%s", "x" * 10**6, error=raised("y" * 10**6)))
    assert len(line) < 2 * (MOST_CHARACTERS + MOST_TRACE)
    assert "more)" in line


def test_s15_a_record_whose_arguments_do_not_fit_is_logged_all_the_same() -> None:
    assert "TypeError in its arguments" in TextFormatter().format(record("%d", "x"))


@pytest.mark.parametrize("text", [*NASTY, "x" * 10**6])
def test_s15_an_alert_about_a_feature_or_segment_of_any_name_is_one_line(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    log_as("json")
    one = alert(alert_key=f"drift/learned/{text}", feature=text, message=f"{text} differs")
    logging.getLogger("monitors.batch").warning("alert %s %s: %s", one.alert_key, one.status, one.message)
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["logger"] == "monitors.batch"
    assert line.isascii()
    assert len(line) < 8 * MOST_CHARACTERS


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("form", "terminal", "as_json"),
    [(None, True, False), (None, False, True), ("json", True, True), ("text", False, False)],
)
def test_json_unless_a_person_looks_or_says_so(
    form: str | None, terminal: bool, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    log_as(form)  # type: ignore[arg-type]
    logging.getLogger("serving.tests").warning("hello")
    (line,) = out.getvalue().splitlines()
    assert line.startswith("{") is as_json
