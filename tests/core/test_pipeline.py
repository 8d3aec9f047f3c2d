import sys
from pathlib import Path

import pytest

from stream_trainer.errors import UsageError
from stream_trainer.loading import load_pipeline
from stream_trainer.pipeline import Pipeline
from stream_trainer.topics import Topics
from tests.core.worlds import CONTRACT


@pytest.mark.parametrize("name", ["", "Flights", "a.b", "a/b", "../x", "-a", "a b", "x" * 65, "a\n"])
def test_a_name_that_could_leave_its_folder_or_topic_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="pipeline name"):
        Pipeline(name=name, contract=CONTRACT)


@pytest.mark.parametrize("name", ["a", "0", "flights-2_b", "x" * 64])
def test_a_plain_name_is_allowed(name: str) -> None:
    assert Pipeline(name=name, contract=CONTRACT).topics == Topics(name)


def test_topics_are_named_after_the_pipeline() -> None:
    topics = Topics("p")
    found = (topics.examples, topics.predictions, topics.rejected, topics.models, topics.alerts, topics.actions)
    assert found == ("p.examples", "p.predictions", "p.rejected", "p.models", "p.alerts", "p.actions")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("examples.flights.pipeline", "module:attribute"),
        (":pipeline", "module:attribute"),
        ("examples.flights.pipeline:", "module:attribute"),
        ("", "module:attribute"),
        ("no_such_module:pipeline", "No module named 'no_such_module'"),
        ("examples.flights.pipeline:none", "has no attribute 'none'"),
        ("examples.flights.pipeline:contract", "is a Contract, not a Pipeline"),
        (".flights:pipeline", "module:attribute"),
        ("examples..flights:pipeline", "No module named"),
    ],
)
def test_an_address_that_names_no_pipeline_is_a_usage_error(address: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_pipeline(address)


def test_a_pipeline_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_in_cwd.py").write_text(
        "from tests.core.worlds import CONTRACT\nfrom stream_trainer import Pipeline\np = Pipeline(name='mine', contract=CONTRACT)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_pipeline("mine_in_cwd:p").name == "mine"
    del sys.modules["mine_in_cwd"]
