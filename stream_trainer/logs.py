"""What a process logs, one line a record: JSON for machines, or text for a terminal.

Whatever a client or a broken file gets into a message stays inside its line: line breaks and control characters are
escaped, and what is too long is cut.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Literal

MOST_CHARACTERS = 4_096
MOST_TRACE = 16_384
_NOISY = ("kafka", "httpx")


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message"}`, with `exception` when there is one; ASCII only."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object without a line break."""
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": cut(_message(record), MOST_CHARACTERS),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = cut(_trace(record), MOST_TRACE)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """One line, and under it the trace of an exception, each of its lines marked as such."""

    def format(self, record: logging.LogRecord) -> str:
        """Printable text."""
        text = printable(cut(_message(record), MOST_CHARACTERS))
        line = f"{_time(record)} {record.levelname} {record.name}: {text}"
        if record.exc_info and record.exc_info[0] is not None:
            trace = cut(_trace(record), MOST_TRACE).split("\n")
            line += "".join(f"\n  | {printable(part)}" for part in trace if part)
        return line


def printable(text: str) -> str:
    r"""Text in which every character that could move a cursor or end a line is escaped, as `\n` and `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, most: int) -> str:
    """At most so many characters, and how many more there were."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more)"


def log_as(form: Literal["json", "text"] | None) -> None:
    """Send every record of this process to standard error in this form; None: text on a terminal, else JSON."""
    text = form == "text" or (form is None and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - a record that does not fit its own arguments is logged all the same
        return f"{record.msg} ({type(error).__name__} in its arguments)"


def _trace(record: logging.LogRecord) -> str:
    assert record.exc_info  # noqa: S101
    return "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
