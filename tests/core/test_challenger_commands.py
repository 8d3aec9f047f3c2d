"""A person puts a challenger beside the champion: the commands, and what they refuse."""

import json
from typing import Any

import pytest

from stream_trainer import cli
from stream_trainer.commands import champion
from stream_trainer.errors import StoreDamaged, UsageError
from stream_trainer.store import ModelStore
from stream_trainer.store.challenges import Challenge, Challenges
from tests.core.test_champion_commands import committed, refused, run, set_mode, store
from tests.core.test_cli import ADDRESS, RUNNER
from tests.core.worlds import NOW

__all__ = ["committed", "store"]


@pytest.fixture(autouse=True)
def _fixed(request: pytest.FixtureRequest) -> None:
    """Version 3 is champion and stays it."""
    set_mode(request.getfixturevalue("store"), "manual", 3)


def newest(store: ModelStore) -> Challenge:
    found = store.challenges.newest().challenge
    assert found is not None
    return found


def spoken(command: str, *arguments: str) -> str:
    found = RUNNER.invoke(cli.app, ["models", command, ADDRESS, *arguments])
    assert found.exit_code == 0, found.output
    return " ".join(found.stdout.split())


def test_a_challenger_is_a_shadow_that_the_trial_decides_about(store: ModelStore) -> None:
    said = run("challenge", "2", "--reason", "wider net")
    assert (said["version"], said["mode"], said["share"], said["decide"]) == (2, "shadow", 0.0, "auto")
    assert (said["alias"], said["reason"], said["champion_held"], said["announced"]) == (1, "wider net", False, False)
    assert "@" in said["by"]
    assert newest(store).version == 2
    assert run("challenge", "2", "--shadow")["mode"] == "shadow"


def test_a_canary_answers_its_share_and_a_person_may_decide(store: ModelStore) -> None:
    said = run("challenge", "1", "--canary", "0.25", "--manual")
    assert (said["mode"], said["share"], said["decide"]) == ("canary", 0.25, "manual")
    replaced = run("challenge", "2", "--canary", "1")
    assert (replaced["alias"], replaced["share"], newest(store).version) == (2, 1.0, 2)


def test_a_withdrawal_leaves_nobody_and_the_next_number_goes_on(store: ModelStore) -> None:
    run("challenge", "2")
    said = run("withdraw", "--reason", "enough")
    assert (said["version"], said["alias"], said["reason"]) == (None, 2, "enough")
    assert "nothing to withdraw" in str(refused("withdraw"))
    assert run("challenge", "1")["alias"] == 3


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        (["3"], UsageError, "is the champion"),
        (["4"], UsageError, "did not pass its gates"),
        (["5"], UsageError, "another contract"),
        (["99"], UsageError, "does not exist"),
        (["1"], UsageError, "retention has deleted it"),
        (["2"], StoreDamaged, "golden.arrow is gone"),
        (["2", "--shadow", "--canary", "0.1"], UsageError, "exclude each other"),
        (["2", "--canary", "0"], UsageError, "would answer nothing"),
    ],
)
def test_what_cannot_challenge_is_refused_and_nothing_changes(
    store: ModelStore, arguments: list[str], kind: type[Exception], says: str
) -> None:
    store.prune(1)
    attempt = store.read(2).manifest.attempt
    store.storage.delete(f"flights/versions/{2:020d}/{attempt}/golden.arrow")
    if arguments == ["5"]:  # of the store's own tests: it names another contract, and holds other files
        assert store.read(5).manifest.contract == "c" * 64
    error = refused("challenge", *arguments)
    assert isinstance(error, kind)
    assert says in str(error)
    assert store.challenges.newest() == (0, None)


@pytest.mark.parametrize("share", ["-0.1", "1.1", "much"])
def test_a_share_that_is_none_is_a_wrong_call(share: str) -> None:
    assert RUNNER.invoke(cli.app, ["models", "challenge", ADDRESS, "2", "--canary", share]).exit_code == 2


def test_where_the_newest_version_is_champion_a_challenger_is_refused_with_what_to_do(store: ModelStore) -> None:
    set_mode(store, "auto", 3)
    for says in ("models pin", "--promotion manual or gated"):
        assert says in str(refused("challenge", "2"))
    set_mode(store, "gated", None)
    assert "`models promote` makes one" in str(refused("challenge", "2"))
    assert store.challenges.newest() == (0, None)


def test_a_held_champion_may_be_challenged_and_the_words_say_what_comes_of_it(store: ModelStore) -> None:
    assert "it is promoted or withdrawn by the trial's test" in spoken("challenge", "2")
    assert "stays until `models promote` or `models withdraw`" in spoken("challenge", "2", "--manual")
    run("pin", "3")
    out = spoken("challenge", "2", "--canary", "0.1")
    assert "answers 0.1 of the keys" in out
    assert "`models release` ends the hold" in out
    assert "next look at the store: no Kafka is configured" in out
    assert run("challenge", "1")["champion_held"] is True
    assert "nobody challenges" in spoken("withdraw")


def test_a_damaged_entry_does_not_keep_a_person_from_deciding(store: ModelStore) -> None:
    store.storage.put("flights/aliases/challenger/1.json", b"{")
    listed = RUNNER.invoke(cli.app, ["models", "list", ADDRESS])
    assert listed.exit_code == 0
    assert "not a challenger" in listed.stderr
    assert run("challenge", "2")["alias"] == 2
    assert newest(store).version == 2


def test_who_is_overtaken_decides_again_on_what_was_said(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run("challenge", "2")
    real = Challenges.append
    overtaken = iter([True, False])

    def append(self: Challenges, challenge: Challenge, based_on: int) -> int | None:
        if next(overtaken):
            real(self, Challenge(version=1, reason="", by="you", at=NOW), based_on)
        return real(self, challenge, based_on)

    monkeypatch.setattr(Challenges, "append", append)
    assert run("withdraw")["alias"] == 3


def test_list_and_show_say_who_is_who(store: ModelStore) -> None:
    run("challenge", "2", "--canary", "0.1")
    found = json.loads(RUNNER.invoke(cli.app, ["models", "list", ADDRESS, "--json"]).stdout)
    assert [v["role"] for v in found] == [None, "challenger (canary, 0.1)", "champion", None, None]
    assert "challenger (canary, 0.1)" in spoken("list")
    assert run("show", "2")["role"] == "challenger (canary, 0.1)"
    run("challenge", "1")
    assert "challenger (shadow)" in spoken("show", "1")


def test_serving_is_told_who_challenges_and_that_nobody_does(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def announce(_: object, pipeline: str, alias: str, version: Any, entry: int, at: object) -> None:
        told.append((pipeline, alias, version and version.number, entry))

    monkeypatch.setattr("stream_trainer.announcing.announce", announce)
    monkeypatch.setattr(champion, "reachable", lambda settings: settings)
    assert run("challenge", "2")["announced"] is True
    assert run("withdraw")["announced"] is True
    assert told == [("flights", "challenger", 2, 1), ("flights", "challenger", None, 2)]
