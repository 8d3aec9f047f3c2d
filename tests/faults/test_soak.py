"""F41: a while of everything at once. `--soak-seconds` and `--soak-seed` say how long and which."""

from pathlib import Path

import pytest

from tests.faults import soak


@pytest.mark.spark
@pytest.mark.timeout(1800)
def test_f41_after_a_while_of_kills_every_record_counts_once(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    outcome = soak.run(tmp_path, pytestconfig.getoption("--soak-seconds"), pytestconfig.getoption("--soak-seed"))
    assert sum(outcome.kills.values()) >= 3
    assert outcome.versions > 1
    assert outcome.replayed == "bit-identical"
