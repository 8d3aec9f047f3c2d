import json
from pathlib import Path

import numpy as np
import pytest

from stream_trainer.settings import Settings
from tests.bench.learning import catalogue
from tests.bench.learning.running import Processes
from tests.bench.learning.stream import Stream

HOME = Settings().cache_dir / "bench" / "peers" / "river" / "bin"
pytestmark = pytest.mark.skipif(
    not (HOME.parent / "stamp").exists(), reason="River's environment is made by `make bench-learning`"
)


def test_rivers_streams_are_functions_of_their_seeds(tmp_path: Path) -> None:
    names = (*catalogue.RIVER_GENERATORS, *catalogue.RIVER_REAL)
    wishes = [
        {"name": name, "rows": 300, "seed": seed, "path": str(tmp_path / f"{name}-{seed}-{copy}.npz")}
        for name in names
        for seed, copy in ((0, 0), (0, 1), (1, 0))
    ]
    (tmp_path / "wishes.json").write_text(json.dumps(wishes))
    Processes(homes={"river": HOME}).python(
        "river", "tests.bench.learning.peers.river_streams", tmp_path / "wishes.json"
    )
    for name in names:
        first, again, other = (Stream.load(tmp_path / f"{name}-{end}.npz") for end in ("0-0", "0-1", "1-0"))
        assert first.digest == again.digest, name
        assert (first.digest == other.digest) == (name in catalogue.RIVER_REAL), name
        # Only what has three categories may show a row twice within so few rows.
        if name.startswith(("sea", "agrawal", "hyperplane", "rbf", "friedman")):
            assert len(np.unique(first.x, axis=0)) == 300, name
