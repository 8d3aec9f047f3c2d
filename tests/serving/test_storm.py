"""A small reload storm: clients that never stop asking while version follows version, each answer checked."""

import asyncio
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from serving.announcements import Announcement
from serving.app import create_app
from serving.follower import Follower
from stream_trainer.features import encode
from stream_trainer.store import ModelStore
from tests.bench.clients import Crowd, request
from tests.serving.fixtures import (
    CONTRACT,
    PIPELINE,
    ROWS,
    Harness,
    columns_of,
    commit_version,
    learned_state,
    serving,
)

CLIENTS = 50


class PushedAnnouncements:
    """As `P.models`: what waits for news is woken by it."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Announcement | None] = queue.SimpleQueue()

    def push(self, announcement: Announcement) -> None:
        self._waiting.put(announcement)

    def poll(self, seconds: float) -> list[Announcement]:
        try:
            found = self._waiting.get(timeout=seconds)
        except queue.Empty:
            return []
        return [] if found is None else [found]

    def close(self) -> None:
        self._waiting.put(None)


@contextmanager
def asking(crowd: Crowd) -> Iterator[None]:
    """The crowd in a thread of its own; all its answers are there when the block has ended."""
    thread = threading.Thread(target=lambda: asyncio.run(crowd.ask()), name="crowd")
    thread.start()
    try:
        yield
    finally:
        crowd.stop()
        thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_f30_in_a_reload_storm_every_answer_is_that_of_the_version_it_names(
    harness: Harness, store: ModelStore, count: int
) -> None:
    source, seen = PushedAnnouncements(), queue.SimpleQueue[int]()
    follower = Follower(PIPELINE, store, source, harness.metrics, harness.clock, poll_seconds=60)
    states = [learned_state(seed=seed) for seed in range(count)]
    commit_version(store, PIPELINE, states[0])
    follower.look()
    follower.start()
    app = create_app(
        PIPELINE, harness.settings, log=harness.log, follower=follower, metrics=harness.metrics, store=store
    )
    try:
        with serving(app) as client:
            port = client.base_url.port
            assert port is not None
            requests = [request(port, json.dumps({"instances": [row]}).encode()) for row in ROWS]
            crowd = Crowd(port, requests, CLIENTS, on_version=seen.put)
            with asking(crowd):
                assert seen.get(timeout=30) == 1
                for number in range(2, count + 1):
                    version = commit_version(store, PIPELINE, states[number - 1])
                    source.push(Announcement(version=number, manifest_sha256=version.sha256, at=harness.clock()))
                    assert seen.get(timeout=30) == number
    finally:
        follower.stop()

    journal = crowd.journal
    assert journal.errors == {}
    assert journal.versions == set(range(1, count + 1))
    assert harness.metric("swaps_total") == count
    features = encode(CONTRACT, columns_of(PIPELINE, ROWS))
    expected = torch.stack([PIPELINE.learner.predict(state, features) for state in states]).numpy()
    versions, rows = np.array(journal.version), np.array(journal.row)
    assert set(rows) == set(range(len(ROWS)))
    np.testing.assert_allclose(journal.output, expected[versions - 1, rows], rtol=1e-5)
    assert len(np.unique(expected, axis=0)) == count
