"""What docs/open-inference.md shows works as it stands there, and names what there is."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.fixtures import serving
from tests.serving.oip.world import World

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "open-inference.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
README = re.findall(r"```python\n# churn\.py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]


@pytest.fixture
def world() -> World:
    names: dict[str, Any] = {}
    exec(compile(README, "churn.py", "exec"), names)  # noqa: S102 - our own README
    return World(names["contract"], name=names["pipeline"].name)


def test_the_python_client_prints_what_was_answered(world: World, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(PYTHON[0])
    with serving(world.app) as client:
        command = [sys.executable, str(script), str(client.base_url)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(f"4 {world.answers.outputs(2)} ['0198c0de-")
    assert [row[:3] for row in world.answers.rows] == [(30.0, 12.5, "free"), (61.0, None, "pro")]
    assert world.answers.wish.max_staleness == 60


def test_the_request_that_curl_sends_is_answered_as_shown(world: World) -> None:
    words = shlex.split(SHELL[0], comments=True)
    assert words[:2] == ["curl", "-s"]
    url, body = words[2], words[words.index("-d") + 1]
    form = {"content-type": "application/x-www-form-urlencoded"}  # what curl says of -d
    answer = world.client.post(httpx.URL(f"http://{url}").path, content=body, headers=form)
    shown: dict[str, Any] = answer.json()
    assert (shown["id"], shown["model_name"]) == ("42", "churn")
    keys = re.findall(r'"(\w+)":', "".join(re.findall(r"^# .*", SHELL[0], re.MULTILINE)))
    assert set(keys) == {*shown, *shown["parameters"], *shown["outputs"][0]}


def test_every_reason_is_on_the_page() -> None:
    source = "".join(p.read_text() for p in (ROOT / "serving" / "oip").glob("*.py"))
    found = set(re.findall(r'(?:_refusal|Unusable|Problem)\(\s*(?:\d+, )?"(\w+)"', source))
    assert len(found) > 15
    assert {reason for reason in found if f"`{reason}`" not in PAGE} == set()
