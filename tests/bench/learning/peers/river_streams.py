"""River's data sets and generators as files: `python -m … WISHES.json`, a list of `{name, rows, seed, path}`.

Changes are made by `ConceptDriftStream` at a third and at two thirds; abrupt: within 1/150 of the stream, gradual: within
a fifth. Its parts have seeds of their own: with one seed it would show rows twice.
"""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from river import datasets
from river.datasets import synth

from tests.bench.learning.stream import Column, Stream, of_labels

REAL = ("phishing", "bananas")
_NOMINAL = {"car", "zipcode", "size", "color", "shape"}


def _drifting(parts: list[Any], rows: int, width: int, seed: int) -> Any:
    found = parts[0]
    for at, part in enumerate(parts[1:], start=1):
        position = at * rows // len(parts)
        found = synth.ConceptDriftStream(found, part, position=position, width=width, seed=seed + at)
    return found


def _changing(make: Callable[[int, int], Any], concepts: tuple[int, ...], speed: str) -> Callable[[int, int], Any]:
    """`make(concept, seed)`, one concept after the other."""

    def made(rows: int, seed: int) -> Any:
        parts = [make(concept, 1_000 * (seed + 1) + at) for at, concept in enumerate(concepts)]
        return _drifting(parts, rows, max(rows // 150 if speed == "abrupt" else rows // 5, 1), seed)

    return made


def _families() -> dict[str, tuple[Callable[[int, int], Any], tuple[int, ...]]]:
    return {
        "sea": (lambda concept, seed: synth.SEA(variant=concept, noise=0.1, seed=seed), (0, 3, 1)),
        "agrawal": (
            lambda concept, seed: synth.Agrawal(classification_function=concept, seed=seed, perturbation=0.05),
            (0, 4, 6),
        ),
        "led": (
            lambda concept, seed: synth.LEDDrift(
                seed=seed, noise_percentage=0.1, irrelevant_features=True, n_drift_features=concept
            ),
            (0, 5, 7),
        ),
        "stagger": (lambda concept, seed: synth.STAGGER(classification_function=concept, seed=seed), (0, 1, 2)),
    }


def _generators() -> dict[str, Callable[[int, int], Any]]:
    found = {
        f"{name}-{speed}": _changing(make, concepts, speed)
        for name, (make, concepts) in _families().items()
        for speed in ("abrupt", "gradual")
    }
    rbf = {"n_classes": 4, "n_features": 10, "n_centroids": 50}
    return found | {
        "hyperplane": lambda _, seed: synth.Hyperplane(seed=seed, n_features=10, n_drift_features=5, mag_change=0.001),
        "rbf": lambda _, seed: synth.RandomRBF(seed_model=seed, seed_sample=seed + 1, **rbf),
        "rbf-drift": lambda _, seed: synth.RandomRBFDrift(
            seed_model=seed, seed_sample=seed + 1, change_speed=0.001, n_drift_centroids=25, **rbf
        ),
        "friedman-drift": lambda rows, seed: synth.FriedmanDrift(
            drift_type="gra", position=(rows // 3, 2 * rows // 3), transition_window=max(rows // 20, 1), seed=seed
        ),
    }


GENERATORS = _generators()


def make(name: str, rows: int, seed: int) -> Stream:
    """At most so many rows; the seed is the generator's, data sets have none."""
    if name in REAL:
        source = {"phishing": datasets.Phishing, "bananas": datasets.Bananas}[name]()
    else:
        source = GENERATORS[name](rows, seed)
    pairs = list(itertools.islice(source, rows))
    names = list(pairs[0][0])
    columns, arrays = [], []
    for feature in names:
        column, values = _column(str(feature), [x[feature] for x, _ in pairs])
        columns.append(column)
        arrays.append(values)
    labels = [y for _, y in pairs]
    numeric = name == "friedman-drift"
    task, classes, y = ("regression", (), np.array(labels, dtype=np.float64)) if numeric else of_labels(labels)
    origin = "real" if name in REAL else "generator"
    return Stream(
        name=name,
        origin=origin,  # type: ignore[arg-type]
        task=task,
        columns=tuple(columns),
        classes=classes,
        x=np.column_stack(arrays),
        y=y,
    )


def _column(name: str, values: list[Any]) -> tuple[Column, Any]:
    if name not in _NOMINAL:
        return Column(name=f"x_{name}"), np.array(values, dtype=np.float64)
    words = sorted({str(value) for value in values})
    codes = {word: code for code, word in enumerate(words)}
    return Column(name=f"x_{name}", words=tuple(words)), np.array([codes[str(v)] for v in values], dtype=np.float64)


def main(path: str) -> None:
    for wish in json.loads(Path(path).read_text()):
        make(wish["name"], wish["rows"], wish["seed"]).save(Path(wish["path"]))


if __name__ == "__main__":
    main(sys.argv[1])
