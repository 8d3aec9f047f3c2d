"""`P.actions` on a real broker: read from a place on, to its end, in pages; compacted, made anew, with rubbish in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from infra.broker import BrokerInfo
from stream_trainer.acting import Asked, HoldPromotion, RaiseLearningRate
from stream_trainer.action_log import KafkaRequests, all_requests
from stream_trainer.acts import Read
from stream_trainer.errors import InputLost, UsageError
from stream_trainer.kafka import Admin, ControlProducer, TopicPlan, client_options, topic_plans
from stream_trainer.settings import KafkaSettings
from stream_trainer.topic_reading import read_all
from tests.core.worlds import asked


class Topic:
    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self.settings = settings
        self.plan = topic_plans(name, settings)["actions"]
        self.admin = Admin(settings)
        self.admin.create_missing([self.plan])
        self.producer = ControlProducer(settings)
        self.open: list[KafkaRequests] = []

    def requests(self) -> KafkaRequests:
        self.open.append(KafkaRequests(self.settings, self.plan.name, self.admin))
        return self.open[-1]

    def ask(self, *requests: Asked) -> None:
        self.producer.send(self.plan.name, [(one.action_id, one) for one in requests])

    def put(self, key: bytes, value: bytes | None) -> None:
        producer = KafkaProducer(**client_options(self.settings))
        producer.send(self.plan.name, key=key, value=value).get(10)
        producer.close()

    def close(self) -> None:
        for requests in self.open:
            requests.close()
        self.producer.close()
        self.admin.close()


@pytest.fixture
def topic(broker: BrokerInfo, tmp_path: Path) -> Iterator[Topic]:
    name = tmp_path.name.lower().replace("_", "-")[:60]
    made = Topic(KafkaSettings(bootstrap_servers=broker.bootstrap_servers), name)
    yield made
    made.close()


def many(n: int) -> list[Asked]:
    return [asked(RaiseLearningRate(rows=1 + i)) for i in range(n)]


def test_it_is_read_to_its_end_in_pages_from_where_it_was_left(topic: Topic) -> None:
    requests = topic.requests()
    assert (requests.after(None, 5).records, requests.after(None, 5).next) == ((), 0)
    sent = many(12)
    topic.ask(*sent)
    keys, read = [], None
    for expected in (5, 5, 2, 0):
        page = requests.after(read, 5)
        assert len(page.records) == expected
        keys += [record.key for record in page.records]
        read = Read(topic_id=page.topic_id, next=page.next)
    assert keys == [one.action_id.encode() for one in sent]
    assert read == Read(topic_id=topic.admin.topic_id(topic.plan.name), next=12)
    topic.ask(sent[0])
    assert [r.offset for r in topic.requests().after(read, 5).records] == [12]
    elsewhere = Read(topic_id="another", next=9)
    assert requests.after(elsewhere, 1).records[0].offset == 0


def test_all_of_it_each_once_and_rubbish_left_out(topic: Topic) -> None:
    sent = many(3)
    topic.ask(*sent, *sent)
    topic.put(b"x", b"\xff")
    topic.put(b"x", None)
    topic.ask(asked(HoldPromotion()))
    assert all_requests(topic.settings, topic.plan.name) == [*sent, asked(HoldPromotion())]


def test_a_topic_that_is_not_there_or_has_several_partitions_is_refused(topic: Topic) -> None:
    with pytest.raises(InputLost, match="is not there"):
        KafkaRequests(topic.settings, f"{topic.plan.name}.other", topic.admin)
    wide = TopicPlan(name=f"{topic.plan.name}.wide", partitions=2, configs={})
    topic.admin.create_missing([wide])
    with pytest.raises(UsageError, match="make it anew with one"):
        KafkaRequests(topic.settings, wide.name, topic.admin)


def test_a_control_topic_is_read_without_the_rubbish_in_it(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    topic.producer.send(topic.plan.name, [("a", {"n": 1})])
    for key, value in ((b"b", b"{"), (b"\xff", b"1"), (b"c", b"\xff\xfe"), (b"d", b"[" * 100_000)):
        topic.put(key, value)
    topic.put(b"gone", None)
    topic.producer.send(topic.plan.name, [("e", 2)])
    found = read_all(topic.settings, topic.plan.name)
    assert [(m.key, m.value, m.offset) for m in found] == [("a", {"n": 1}, 0), ("gone", None, 5), ("e", 2, 6)]
    told = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert [line.split(" ")[0] for line in told] == [f"{topic.plan.name}[0]@{offset}" for offset in (1, 2, 3, 4)]
