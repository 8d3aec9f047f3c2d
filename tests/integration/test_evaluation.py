"""From an answer over HTTP to its loss in the report: real Kafka, real Spark, a real service."""

import json
import math
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from stream_trainer import cli
from stream_trainer.prediction_blocks import records
from stream_trainer.topic_reading import read_all
from tests.integration.world import World, until
from tests.serving.processes import serve

INSTANCES = 60


def pipeline_file(world: World) -> str:
    module = world.pipeline.name.replace("-", "_")
    (world.settings.data_dir / f"{module}.py").write_text(
        "from stream_trainer import Pipeline\nfrom tests.integration.world import CONTRACT\n"
        f"pipeline = Pipeline(name={world.pipeline.name!r}, contract=CONTRACT, reference_rows=100)\n"
    )
    return f"{module}:pipeline"


def ask(world: World, examples: list[dict[str, Any]]) -> tuple[dict[str, float], int]:
    """What a service answers about examples whose label nobody knows yet: outputs by prediction id, and its version."""
    more = {
        "PYTHONPATH": f"{world.settings.data_dir}:{Path(__file__).parents[2]}",
        "STREAM_TRAINER_DATA_DIR": str(world.settings.data_dir),
        "STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS": str(world.settings.kafka.bootstrap_servers),
        "STREAM_TRAINER_KAFKA__REQUEST_TIMEOUT_SECONDS": "10",
    }
    store = Path(world.settings.store_url)
    with serve(pipeline_file(world), store, "--admin-port", "-1", more=more) as running, httpx.Client() as client:
        until(lambda: running.get("/health/ready")[0] == 200, "the service to be ready")
        instances = [{name: value for name, value in example.items() if name != "y"} for example in examples]
        answer = client.post(f"{running.url}/predict", json={"instances": instances}, timeout=60)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        until(lambda: len(logged(world)) == len(examples), "the prediction log to hold every answer")
        assert (
            'stream_trainer_serving_score{forecast="trained",forecaster="model",metric="log_loss"}'
            in running.get("/metrics")[1]
        )
    return {row["prediction_id"]: row["output"] for row in said["predictions"]}, said["model_version"]


def logged(world: World) -> list[dict[str, Any]]:
    found = read_all(world.settings.kafka, world.pipeline.topics.predictions)
    return [json.loads(row) for message in found for row in records(msgspec.json.encode(message.value))]


@pytest.mark.slow
def test_an_answer_is_scored_by_what_was_served_and_its_loss_ends_in_the_report(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.send_good(400)
    world.train()
    examples = [world.example() for _ in range(INSTANCES)]
    outputs, version = ask(world, examples)
    assert version == world.store.highest()

    world.send_good(2_000)  # a newer version knows better by the time the labels come
    world.train()
    assert world.store.highest() > version
    by_key = {record["key"]: record for record in logged(world)}
    for example in examples:
        said = by_key[example["id"]]
        assert outputs[said["prediction_id"]] == pytest.approx(said["output"])
        reserved = {"_prediction_id": said["prediction_id"], "_model_version": said["model_version"]}
        world.producer.produce(
            world.topic, json.dumps({**example, **reserved, "_output": said["output"]}).encode(), key=example["id"]
        )
    assert world.producer.flush(30) == 0
    world.train()

    monkeypatch.setenv("STREAM_TRAINER_DATA_DIR", str(world.settings.data_dir))
    out = tmp_path / "report"
    done = CliRunner().invoke(cli.app, ["models", "report", world.pipeline.name, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    rows = {(row["forecast"], row["forecaster"]): row for row in report["summary"]}
    said_loss = [-math.log(p if e["y"] else 1 - p) for e in examples for p in [by_key[e["id"]]["output"]]]
    served = rows["served", "model"]
    assert served["rows"] == INSTANCES
    assert served["log_loss"] == pytest.approx(sum(said_loss) / INSTANCES, rel=1e-5)
    assert rows["trained", "model"]["rows"] == 2_400 + INSTANCES
    assert rows["trained", "model"]["log_loss"] != pytest.approx(served["log_loss"], rel=1e-3)
    assert rows["served", "majority"]["log_loss"] == pytest.approx(math.log(2), abs=0.1)
    assert {path.name for path in out.iterdir()} >= {"report.html", "log_loss.png", "calibration.png", "segments.png"}
