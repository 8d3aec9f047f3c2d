"""NannyML's estimates without labels (CBPE) with its defaults. Runs in an environment of its own; see `drift/estimate.py`.

Reads `<folder>/rows.npz` (float64 arrays `reference`, `reference_labels`, `windows` one after the other) and writes
`<folder>/found.json`.
"""

import os

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # read on import

import json
import sys
import time
import warnings
from pathlib import Path

import nannyml
import numpy as np
import pandas as pd

METRICS = ("accuracy", "roc_auc")


def frame(answers: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"answer": answers, "said": (answers > 0.5).astype(int)})


def main(folder: Path, rows: int) -> None:
    data = np.load(folder / "rows.npz", allow_pickle=False)
    reference = frame(data["reference"]).assign(label=data["reference_labels"].astype(int))
    began = time.process_time()
    cbpe = nannyml.CBPE(
        metrics=list(METRICS),
        y_pred_proba="answer",
        y_pred="said",
        y_true="label",
        problem_type="classification_binary",
        chunk_size=rows,
    ).fit(reference)
    table = cbpe.estimate(frame(data["windows"])).filter(period="analysis").to_df()
    found = {
        metric: {name: [float(v) for v in table[metric, name]] for name in ("value", "sampling_error", "alert")}
        for metric in METRICS
    }
    (folder / "found.json").write_text(json.dumps({"seconds": time.process_time() - began, **found}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]))
