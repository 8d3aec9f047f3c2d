"""What is asked through a real broker is done by the trainer on real Spark, and a replay without Spark repeats it."""

from stream_trainer.acting import HoldPromotion, RaiseLearningRate, WarmRetrain
from stream_trainer.kafka import ControlProducer
from stream_trainer.log_reader import LogReader
from stream_trainer.planning import acting_versions
from stream_trainer.replay import replay
from tests.core.worlds import asked
from tests.integration.world import World


def test_what_is_asked_is_done_and_replayed_bit_for_bit(world: World) -> None:
    world.send_good(120)
    world.train()
    requests = [asked(RaiseLearningRate(rows=50)), asked(HoldPromotion()), asked(WarmRetrain(records=60))]
    producer = ControlProducer(world.settings.kafka)
    producer.send(world.pipeline.topics.actions, [(one.action_id, one) for one in requests])
    producer.close()
    before = world.store.highest()
    world.send_good(40)
    world.train()
    (version,) = acting_versions(world.store, world.store.head())
    acts = version.manifest.acts[0].acts
    assert [(act.asked, act.is_done) for act in acts] == [(one, True) for one in requests]
    champion = world.store.champion()
    assert champion is not None
    assert (version.number, champion.number) == (before + 1, before)
    with LogReader(world.pipeline.contract, world.settings.kafka) as reader:
        assert replay(world.pipeline, world.store, reader.read, to=world.store.highest()).identical
