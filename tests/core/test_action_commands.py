"""`actions list|ask` on a real broker: what is asked is there, and what became of it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from infra.broker import BrokerInfo
from stream_trainer import cli
from stream_trainer.acting import Asked
from stream_trainer.action_log import all_requests
from stream_trainer.errors import UsageError
from stream_trainer.kafka import ControlProducer
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import KafkaSettings
from tests.core.test_actions import ALWAYS, FASTER, Scene
from tests.core.test_cli import ADDRESS, RUNNER
from tests.core.worlds import asked


@dataclass
class Shell:
    """The commands, of a pipeline whose topic is this test's own."""

    pipeline: Pipeline
    kafka: KafkaSettings
    folder: Path

    def run(self, command: str, *arguments: str) -> Any:
        found = RUNNER.invoke(cli.app, ["actions", command, ADDRESS, *arguments])
        if found.exception is not None:
            raise found.exception
        return json.loads(found.stdout) if "--json" in arguments else found.stdout

    def asked(self) -> list[Asked]:
        return all_requests(self.kafka, self.pipeline.topics.actions)

    def train(self, *requests: Asked) -> None:
        scene = Scene(self.folder, self.pipeline, batches=1)
        scene.requests.ask(*requests)
        scene.train()

    def outcomes(self) -> list[tuple[str, int | None, str]]:
        return [(one["outcome"], one["version"], one["why"]) for one in self.run("list", "--json")]


@pytest.fixture
def shell(broker: BrokerInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    pipeline = replace(ALWAYS, name=f"asked-{tmp_path.name.lower().replace('_', '-')[-40:]}")
    monkeypatch.setattr("stream_trainer.commands.actions.load_pipeline", lambda _: pipeline)
    monkeypatch.setenv("STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    monkeypatch.setenv("STREAM_TRAINER_STORE__URL", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(pipeline, KafkaSettings(bootstrap_servers=broker.bootstrap_servers), tmp_path / "store")


def test_what_is_asked_waits_then_is_done_or_refused(shell: Shell) -> None:
    assert shell.run("list") == "nothing was asked\n"
    said = shell.run("ask", "raise-learning-rate", "--factor", "5", "--reason", "a new airline", "--json")
    assert said["action"] == {"kind": "raise_learning_rate", "factor": 5.0, "rows": 5000}
    assert "asked for hold-promotion, action" in shell.run("ask", "hold-promotion")
    assert shell.outcomes() == [("waits", None, "")] * 2
    shell.train(*shell.asked())
    assert shell.outcomes() == [("done", 1, ""), ("refused", 1, "there is no champion yet")]
    table = shell.run("list")
    assert "raise_learning_rate" in table
    assert "there is no champion yet" in table


def test_what_only_versions_know_of_is_listed_too(shell: Shell) -> None:
    shell.train(asked(FASTER))
    assert shell.outcomes() == [("done", 1, "")]


def test_what_cannot_be_asked_is_refused_and_not_written(shell: Shell) -> None:
    for arguments in (
        ("raise-learning-rate", "--factor", "0.5"),
        ("roll-back", "--rows", "3"),
        ("release-promotion",),
        ("release-promotion", "--hold", "x"),
    ):
        with pytest.raises(UsageError, match=arguments[0].replace("-", "_")):
            shell.run("ask", *arguments)
    with pytest.raises(UsageError, match="--reason: give one line"):
        shell.run("ask", "roll-back", "--reason", "two\nlines")
    assert shell.outcomes() == []


def test_rubbish_in_the_topic_does_not_end_the_list(shell: Shell) -> None:
    shell.run("ask", "hold-promotion")
    producer = ControlProducer(shell.kafka)
    producer.send(shell.pipeline.topics.actions, [("rubbish", {"action": {"kind": "explode"}})])
    producer.close()
    assert shell.outcomes() == [("waits", None, "")]
