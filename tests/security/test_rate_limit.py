"""The token bucket against a model that counts tokens, and what a caller who asks too often is told."""

import asyncio
from fractions import Fraction
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from serving.access import PUBLIC, Gate
from serving.metrics import Metrics
from serving.rate_limit import SECOND, Bucket, retry_after
from stream_trainer.store import ModelStore
from tests.security.callers import Callers, bearer, client, doors

RATES = st.sampled_from([0.5, 1.0, 4.0, 100.0, 1000.0, 31_250.0])  # whole nanoseconds apart
STEPS = st.lists(st.integers(0, 3 * SECOND) | st.integers(0, 2000), max_size=60)


@given(RATES, st.integers(1, 20), STEPS)
def test_s08_a_bucket_grants_what_counting_tokens_grants(rate: float, burst: int, steps: list[int]) -> None:
    bucket, tokens, last = Bucket(rate, burst), Fraction(burst), 0
    for now in accumulate(steps):
        tokens = min(Fraction(burst), tokens + Fraction(now - last, SECOND) * Fraction(rate))
        last = now
        wait = bucket.take(now)
        assert (wait == 0) == (tokens >= 1)
        if wait == 0:
            tokens -= 1
        else:
            assert Fraction(wait, SECOND) == (1 - tokens) / Fraction(rate)


@given(RATES, st.integers(1, 20), STEPS)
def test_s08_in_no_span_is_more_granted_than_the_burst_and_the_rate(rate: float, burst: int, steps: list[int]) -> None:
    bucket = Bucket(rate, burst)
    granted = [now for now in accumulate(steps) if bucket.take(now) == 0]
    for i, first in enumerate(granted):
        for n, last in enumerate(granted[i:], start=1):
            assert n <= burst + Fraction(last - first, SECOND) * Fraction(rate)


@given(RATES, st.integers(1, 20), STEPS)
def test_s08_whoever_waits_as_told_is_granted_and_not_a_nanosecond_before(
    rate: float, burst: int, steps: list[int]
) -> None:
    bucket = Bucket(rate, burst)
    for now in accumulate(steps):
        wait = bucket.take(now)
        if wait:
            assert bucket.take(now + wait - 1) == 1
            assert bucket.take(now + wait) == 0
            return


@given(RATES, st.integers(1, 5), st.integers(0, 10 * SECOND))
def test_s08_a_clock_that_goes_back_grants_nothing_more(rate: float, burst: int, back: int) -> None:
    bucket = Bucket(rate, burst)
    now = 20 * SECOND
    assert [bucket.take(now) for _ in range(burst)] == [0] * burst
    assert bucket.take(now - back) > 0


def test_s08_waiting_is_said_in_whole_seconds_and_never_zero() -> None:
    assert [retry_after(wait) for wait in (1, SECOND, SECOND + 1, 90 * SECOND)] == ["1", "1", "2", "90"]


def test_s08_a_key_that_asks_too_often_is_told_when_to_come_back_and_others_are_not_hurt(
    store: ModelStore, callers: Callers
) -> None:
    callers.add("slow", "predict", rate=0.1, burst=2)
    asker = client(doors(store, callers.ring()).public)
    slow, other = bearer(callers.texts["slow"]), bearer(callers.texts["predict"])
    answers = [asker.get("/metrics", headers=slow) for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert answers[2].json()["reason"] == "rate"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 10
    assert asker.get("/metrics", headers=other).status_code == 200


def test_s08_the_setting_is_for_keys_that_name_no_rate(callers: Callers) -> None:
    callers.add("fast", "predict", rate=50, burst=5)
    ring = callers.ring(rate=2, burst=3)
    shapes = [
        known.bucket.shape for text in ("predict", "fast") if (known := ring.verify(callers.texts[text].encode()))
    ]
    assert shapes == [Bucket(2, 3).shape, Bucket(50, 5).shape]


def test_s08_memory_is_one_bucket_a_known_key_whoever_asks(callers: Callers) -> None:
    ring = callers.ring()
    for n in range(1000):
        assert ring.verify(f"st_{n:012x}_{'0' * 64}".encode()) is None
    assert len(ring._known) == 4
    assert not hasattr(ring.verify(callers.texts["predict"].encode()).bucket, "__dict__")  # type: ignore[union-attr]


def test_s08_so_many_requests_are_answered_at_a_time_and_health_always(callers: Callers) -> None:
    released = asyncio.Event()
    key = callers.texts["predict"].encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/predict":
            await released.wait()
        if scope.get("fails"):
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    metrics = Metrics()
    gate = Gate(app, PUBLIC, keys=callers.ring(), metrics=metrics, most=2)

    async def ask(path: str, *, known: bool = True, fails: bool = False) -> tuple[int, dict[bytes, bytes]]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        headers = [(b"x-api-key", key)] if known else []
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "fails": fails}
        await gate(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"])

    async def story() -> None:
        waiting = [asyncio.create_task(ask("/predict")), asyncio.create_task(ask("/predict", fails=True))]
        await asyncio.sleep(0)
        status, headers = await ask("/predict")
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert [(await ask(path))[0] for path in ("/health/live", "/health/ready", "/metrics")] == [200] * 3
        assert (await ask("/predict", known=False))[0] == 401, "who has no key takes no place"
        waiting.append(asyncio.create_task(ask("/lineage/1")))
        released.set()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(e) for e in ended] == [tuple, RuntimeError, tuple]
        assert gate.active == 0
        assert (await ask("/predict"))[0] == 200

    asyncio.run(story())
    assert metrics.registry.get_sample_value("stream_trainer_serving_refused_requests_total", {"reason": "busy"}) == 2
