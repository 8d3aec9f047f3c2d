"""Each label is taught once, whatever is killed while it is joined. `--soak-seed` says which kills."""

from pathlib import Path

import pytest

from tests.faults import joining


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(1800)
def test_after_kills_of_joiner_trainer_and_broker_each_label_was_taught_once(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    outcome = joining.run(tmp_path, 6, pytestconfig.getoption("--soak-seed"))
    assert sum(outcome.kills.values()) == 6
    assert outcome.taught + outcome.timeouts == outcome.learned > 200
    assert outcome.timeouts > 0
    assert all(outcome.reasons[reason] > 0 for reason in ("duplicate", "late", "orphan"))
    assert outcome.kills[joining.DELETED] == outcome.kills[joining.RESTORED] == 1
    assert outcome.replayed == "bit-identical"
