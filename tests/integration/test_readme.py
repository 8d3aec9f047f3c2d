"""The README's own pipeline, as it stands there."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from stream_trainer.decode import decode
from stream_trainer.loading import load_pipeline
from stream_trainer.schema import TIMESTAMP

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = {m[1]: m[2] for m in re.finditer(r"```python\n# (\w+)\.py\n(.*?)```", README, re.DOTALL)}


class FakeProducer:
    """Stands in for the README's KafkaProducer: what is sent is what is looked at."""

    sent: list[tuple[str, bytes, bytes]]

    def __init__(self, bootstrap_servers: str) -> None:
        type(self).sent = []

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        self.sent.append((topic, key, value))

    def flush(self) -> None:
        pass


def test_the_pipeline_of_ones_own_has_at_most_twenty_lines_and_accepts_what_the_sender_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = [line for line in BLOCKS["churn"].splitlines() if line.strip()]
    assert len(code) <= 20
    (tmp_path / "churn.py").write_text(BLOCKS["churn"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    pipeline = load_pipeline("churn:pipeline")

    monkeypatch.setattr("kafka.KafkaProducer", FakeProducer)
    monkeypatch.setattr(sys, "argv", ["send.py", "127.0.0.1:9092"])
    exec(compile(BLOCKS["send"], "send.py", "exec"), {})  # noqa: S102 - our own README
    topics = {topic for topic, _, _ in FakeProducer.sent}
    values = [value for _, _, value in FakeProducer.sent]
    assert topics == {pipeline.topics.examples}
    assert json.loads(values[0])["customer"] == "c0"

    batch = pa.RecordBatch.from_pydict(
        {
            "topic": ["t"] * len(values),
            "partition": pa.array([0] * len(values), pa.int32()),
            "offset": list(range(len(values))),
            "timestamp": pa.array([datetime.now(UTC)] * len(values), TIMESTAMP),
            "value": values,
        }
    )
    assert decode(pipeline.contract, batch).column("_reason").null_count == len(values)


def test_the_readme_shows_both_commands() -> None:
    assert "make demo" in README
    assert "make test" in README


def test_the_test_of_ones_own_passes_as_it_stands_there(tmp_path: Path) -> None:
    for name in ("churn", "test_churn"):
        (tmp_path / f"{name}.py").write_text(BLOCKS[name])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_churn.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
