"""Commands that learn nothing start at once and stay small."""

import subprocess
import sys


def test_the_front_door_imports_neither_torch_nor_spark() -> None:
    code = "import sys, stream_trainer.cli, infra.demo; print([m for m in ('torch', 'pyspark', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_replay_needs_no_spark() -> None:
    modules = (
        "stream_trainer.replay, stream_trainer.log_reader, stream_trainer.predictions, stream_trainer.commands.lineage"
    )
    code = f"import sys, {modules}; print('pyspark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
