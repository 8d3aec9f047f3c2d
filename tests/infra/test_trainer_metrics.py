"""The trainer's own `/metrics`, over a real socket, and that its documentation names what is there."""

import re
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.trainer_metrics import PREFIX, metrics_told
from stream_trainer.errors import UsageError
from stream_trainer.lineage import Lineage
from stream_trainer.settings import TrainerSettings
from tests.core.test_microbatch import PIPELINE, World, fill

SEGMENTS = tuple(PIPELINE.contract.segments)
ROOT = Path(__file__).parents[2]


def scrape(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        family.name.removeprefix(f"{PREFIX}_"): {tuple(s.labels.values()): s.value for s in family.samples}
        for family in text_string_to_metric_families(text)
    }


def test_what_is_asked_for_is_where_the_trainer_stands_now(tmp_path: Path) -> None:
    world = World(tmp_path)
    standing: list[Lineage | None] = [None]
    with metrics_told(TrainerSettings(metrics_port=0), lambda: standing[0], SEGMENTS) as port:
        assert port is not None
        assert scrape(port) == {}
        standing[0] = world.lineage
        assert scrape(port)["version"] == {(): 0}
        fill(world)
        world.learn()
        standing[0] = world.lineage
        found = scrape(port)
        manifest = world.store.read(1).manifest
        assert found["version"] == {(): 1}
        assert found["score_rows"] == {("trained",): manifest.rows.trained, ("served",): 0}
        assert found["score"]["trained", "model", "log_loss"] == manifest.metrics["log_loss"]
        assert found["score"]["trained", "majority", "accuracy"] == manifest.metrics["majority"]["accuracy"]
        names = set(found) | {"segment_score"}
    listed = set(re.findall(r"^\| `…(\w+)` \|", (ROOT / "docs" / "telemetry.md").read_text(), re.MULTILINE))
    assert listed == names


def test_a_port_that_is_taken_is_said_so() -> None:
    with metrics_told(TrainerSettings(metrics_port=0), lambda: None, ()) as port:
        assert port is not None
        taken = TrainerSettings(metrics_port=port)
        with pytest.raises(UsageError, match=rf"trainer\.metrics_port: 127\.0\.0\.1:{port} cannot be had"):
            metrics_told(taken, lambda: None, ()).__enter__()


def test_without_a_port_nothing_is_told() -> None:
    with metrics_told(TrainerSettings(), lambda: None, ()) as port:
        assert port is None
