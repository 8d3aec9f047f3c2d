"""What is called of Evidently in the bench decides as its preset does."""

import numpy as np
import pytest

from tests.bench.drift import worlds
from tests.bench.drift.detectors import Rows
from tests.bench.drift.worlds import CHANGES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its own code, on import
@pytest.mark.parametrize("reference_rows", [500, 2_000])
def test_the_presets_choice_is_that_of_the_preset_itself(reference_rows: int) -> None:
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    from tests.bench.drift.peers import evidently_preset

    def frame(seed: int, rows: int) -> Rows:
        return worlds.frame(np.random.default_rng(seed), rows, 8, CHANGES[1], [0, 1, 2])

    reference, window = frame(1, reference_rows), frame(2, 400)
    detector = evidently_preset.build("columns", 400)
    detector.fit(reference)
    report = Report([DataDriftPreset()]).run(pd.DataFrame(dict(window)), pd.DataFrame(dict(reference)))
    scores = [metric for metric in report.dict()["metrics"] if metric["metric_name"].startswith("ValueDrift")]
    drifted = {
        m["config"]["column"]
        for m in scores
        if (m["value"] < m["config"]["threshold"]) == ("p_value" in m["config"]["method"])
    }
    assert len(scores) == 8
    assert detector.alarm(window) == drifted
