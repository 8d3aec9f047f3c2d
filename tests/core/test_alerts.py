import json
from datetime import datetime, timedelta
from pathlib import Path

import jsonschema
import msgspec
import pytest

from stream_trainer.alerts import TrainerAlert, damage_alert, failing_since, gate_alerts
from stream_trainer.store import Manifest, Rows
from stream_trainer.store.manifest import Verdict
from tests.core.test_microbatch import World, fill
from tests.core.worlds import NOW, TOPIC

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "alert.json").read_text())


@pytest.fixture
def passed(tmp_path: Path) -> Manifest:
    world = World(tmp_path)
    fill(world)
    world.learn()
    return world.store.read(1).manifest


def failed(manifest: Manifest, number: int = 2, **fields: object) -> Manifest:
    verdict = Verdict(gate="loss_jump", passed=False, detail="loss 9 is over 3 times the usual 0.5")
    changes: dict[str, object] = {
        "version": number,
        "gates": [verdict],
        "rows": Rows(seen=9, quarantined=9),
        "quarantined": [{TOPIC: {0: (20, 29)}}],
        "created_at": NOW + timedelta(seconds=number),
    }
    return msgspec.structs.replace(manifest, **{**changes, **fields})


def never(gate: str) -> datetime:
    raise AssertionError(gate)


def fits(alert: TrainerAlert) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(msgspec.json.encode(alert)))


def test_a_gate_that_fails_opens_an_alert_that_says_what_is_kept_out(passed: Manifest) -> None:
    (alert,) = gate_alerts(failed(passed), passed, never)
    assert (alert.alert_key, alert.status, alert.model_version) == ("gate/loss_jump", "opened", 2)
    assert alert.ranges == [{TOPIC: {0: (20, 29)}}]
    assert "version 2 keeps the weights of its parent" in alert.message
    fits(alert)


def test_it_is_updated_while_it_fails_and_resolved_when_it_passes(passed: Manifest) -> None:
    first, second = failed(passed), failed(passed, 3)
    (again,) = gate_alerts(second, first, lambda _: first.created_at)
    assert (again.status, again.opened_at, again.updated_at) == ("updated", first.created_at, second.created_at)
    fine = msgspec.structs.replace(passed, version=4, gates=[Verdict(gate="loss_jump", passed=True, detail="")])
    (over,) = gate_alerts(fine, second, lambda _: first.created_at)
    assert (over.status, over.message) == ("resolved", "loss_jump passes again with version 4")
    fits(over)
    assert gate_alerts(fine, fine, never) == []


def test_saying_it_again_says_the_same(passed: Manifest) -> None:
    assert gate_alerts(failed(passed), passed, never) == gate_alerts(failed(passed), passed, never)


def test_since_when_it_fails_is_read_from_the_manifests(passed: Manifest) -> None:
    back = [failed(passed, 4), failed(passed, 3), passed, failed(passed, 1)]
    assert failing_since("loss_jump", back) == back[1].created_at
    assert failing_since("finite", back) is None
    assert failing_since("loss_jump", []) is None


@pytest.mark.parametrize("healed_by", [None, 4])
def test_a_damaged_version_is_told_until_its_records_are_learned_again(healed_by: int | None) -> None:
    alert = damage_alert("flights", 3, "size differs", NOW, healed_by=healed_by)
    assert alert.status == ("opened" if healed_by is None else "resolved")
    assert ("learned again in version 4" in alert.message) == (healed_by == 4)
    fits(alert)


def test_what_is_no_alert_does_not_fit(passed: Manifest) -> None:
    value = json.loads(msgspec.json.encode(gate_alerts(failed(passed), passed, never)[0]))
    for change in ({"kind": "drift"}, {"alert_key": "x"}, {"ranges": [{"t": {"0": [1]}}]}, {"status": "closed"}):
        assert not jsonschema.Draft202012Validator(SCHEMA).is_valid({**value, **change})
