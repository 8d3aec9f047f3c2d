import subprocess
import sys


def test_serving_imports_neither_pyspark_nor_pandas() -> None:
    code = "import sys, serving.server; print([m for m in ('pyspark', 'pandas') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
