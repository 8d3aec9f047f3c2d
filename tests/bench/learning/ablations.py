"""`python -m tests.bench.learning.ablations`: what each part of a learner is worth, on generated streams only."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from stream_trainer.learner import Learner
from stream_trainer.learners.sgd import DriftResponse, Sgd
from stream_trainer.learners.sgd import Replay as SgdReplay
from stream_trainer.learners.tabular import LabelMemory, Nets, Passes, Replay, Tabular
from stream_trainer.settings import Settings
from tests.bench import report
from tests.bench.learning import catalogue, document, protocol
from tests.bench.learning.catalogue import RIVER_GENERATORS, Lengths
from tests.bench.learning.ours import Ours
from tests.bench.learning.running import Processes
from tests.bench.learning.stream import Stream
from tests.bench.learning.synthetic import MAKERS
from tests.bench.peers import environments

_RATES = (1e-3, 3e-3, 1e-2)
TABULAR: Mapping[str, Learner] = {
    "the default": Tabular(),
    "no nets": Tabular(nets=None),
    "one net (rate 0.003)": Tabular(nets=Nets(rates=(3e-3,), blind=(False,))),
    "no running means of weights": Tabular(nets=Nets(average=0.0)),
    "no linear experts": Tabular(linear=None),
    "no neighbours": Tabular(neighbours=None),
    "no label memory": Tabular(memory=None),
    "a label memory that all nets see": Tabular(nets=Nets(blind=(False,)), memory=LabelMemory()),
    "nothing replayed": Tabular(replay=replace(Replay(), drawn=0)),
    "one pass from the start": Tabular(passes=Passes(most=0)),
    "blocks as one piece": Tabular(passes=Passes(block=1_000_000)),
    "no response to drift": Tabular(drift=None),
}
SGD: Mapping[str, Learner] = {
    "plain": Sgd(),
    "`passes=2`": Sgd(passes=2),
    "`replay=Replay()`": Sgd(replay=SgdReplay()),
    "`rates=(1e-3, 3e-3, 1e-2)`": Sgd(rates=_RATES),
    "`drift=DriftResponse()`": Sgd(drift=DriftResponse()),
    "`replay`, `rates` and `drift`": Sgd(replay=SgdReplay(), rates=_RATES, drift=DriftResponse()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A learner and changes of it, the first being what the others are compared with. `name`: of its sections."""

    name: str
    title: str
    what: str
    variants: Mapping[str, Learner]


STUDIES = (
    Study(name="ablations", title="What each part is worth", what="The default", variants=TABULAR),
    Study(name="sgd", title="What each option of `Sgd` is worth", what="Plain `Sgd()`", variants=SGD),
)


@dataclass(frozen=True, slots=True)
class _Score:
    accuracy: float
    log_loss: float


def main(argv: Sequence[str]) -> int:
    """Measure all variants; write the section when asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.learning.ablations", description=__doc__)
    parser.add_argument("--seeds", default="0,1,2", help="of the generators, with commas between them")
    parser.add_argument("--sizes", default="256,1024", help="rows of a block, with commas between them")
    parser.add_argument("--report", type=Path, help="the Markdown file whose sections are rewritten")
    parser.add_argument("--study", choices=[s.name for s in STUDIES], default="ablations", help="of which learner")
    given = parser.parse_args(argv)
    [study] = (study for study in STUDIES if study.name == given.study)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    console, streams = Console(), _streams(seeds)
    for size in (int(size) for size in given.sizes.split(",")):
        found = {}
        for name, learner in study.variants.items():
            found[name] = {key: _score(learner, stream, key[1], size) for key, stream in streams.items()}
            console.print(f"M = {size}: {name}", style="dim")
        text = _section(study, found, size, len(seeds))
        console.print(text, markup=False)
        if given.report is not None:
            command = " ".join(["python -m tests.bench.learning.ablations", *argv])
            report.put(given.report, f"{study.name}-{size}", text, command, head=document.HEAD)
    return 0


def _streams(seeds: Sequence[int]) -> dict[tuple[str, int], Stream]:
    """The generators with classes; those with numbers have another scale."""
    cache = Settings().cache_dir
    processes = Processes(homes={"river": environments.ensure("river", cache, own_torch=True)})

    def river(wishes: Path) -> None:
        processes.python("river", "tests.bench.learning.peers.river_streams", wishes)

    wanted = [s for s in catalogue.sources(None) if s.name in {*RIVER_GENERATORS, *MAKERS}]
    files = catalogue.prepare(wanted, seeds, Lengths(), cache / "bench" / "learning", river)
    loaded = {key: Stream.load(path) for key, path in files.items()}
    return {key: stream for key, stream in loaded.items() if stream.task != "regression"}


def _score(learner: Learner, stream: Stream, seed: int, size: int) -> _Score:
    ours = Ours(stream, seed)
    ours.pipeline = replace(ours.pipeline, learner=learner)
    ours.state = learner.init(ours.pipeline.spec, seed)
    [cell] = protocol.run(ours, stream, {size: stream.rows}, clock=time.process_time, limit=float("inf"))
    rows = cell.scored
    return _Score(sum(cell.first) / rows * 100, sum(cell.second) / rows)


def _section(study: Study, found: Mapping[str, Mapping[tuple[str, int], _Score]], size: int, seeds: int) -> str:
    [(_, default), *others] = found.items()
    names = sorted({name for name, _ in default})
    accuracy, loss = (np.mean([getattr(s, part) for s in default.values()]) for part in ("accuracy", "log_loss"))
    lines = [
        f"## {study.title}, M = {size:,}",
        "",
        f"{study.what} on {len(names)} generated streams of classes, {seeds} seeds each: {accuracy:.2f} % / {loss:.4f}.",
        "Each change against it: accuracy in points / log loss, and the streams that lose and win most.",
        "",
        "| change | mean | loses most | wins most |",
        "| --- | --- | --- | --- |",
    ]
    for variant, scores in others:
        by_stream = {name: _difference(scores, default, name) for name in names}
        worst, best = (choose(by_stream, key=lambda name: by_stream[name][0]) for choose in (min, max))
        points, nats = np.mean(list(by_stream.values()), axis=0)
        lines.append(
            f"| {variant} | {points:+.2f} / {nats:+.4f} | {worst} {by_stream[worst][0]:+.1f} "
            f"| {best} {by_stream[best][0]:+.1f} |"
        )
    return "\n".join(lines)


def _difference(
    scores: Mapping[tuple[str, int], _Score], default: Mapping[tuple[str, int], _Score], name: str
) -> tuple[float, float]:
    keys = [key for key in default if key[0] == name]
    points = np.mean([scores[key].accuracy - default[key].accuracy for key in keys])
    return float(points), float(np.mean([scores[key].log_loss - default[key].log_loss for key in keys]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
