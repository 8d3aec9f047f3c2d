"""Ten thousand requests drawn from the service's own OpenAPI document, half of them against it: none makes it fail."""

import tempfile
from collections import Counter
from pathlib import Path

from tests.bench.section import Section
from tests.faults.options import Options
from tests.serving.fuzz import TEMPORARY, asked_many

_HEADINGS = ("requests", "2xx", "4xx", "503", "any other 5xx")


def measure(options: Options) -> Section:
    """As many rounds as seeds are asked for; without, as many as ten thousand requests take.

    Raises:
        AssertionError: an answer is one that the document does not describe; the request is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        return section(asked_many(Path(folder), options.seed, options.seeds))


def section(statuses: Counter[int]) -> Section:
    """How many answers had which status.

    Raises:
        AssertionError: the service failed.
    """
    shares = Counter({_class(status): 0 for status in (200, 400, TEMPORARY, 500)})
    for status, count in statuses.items():
        shares[_class(status)] += count
    assert set(shares) == set(_HEADINGS[1:]), statuses
    assert not shares["any other 5xx"], statuses
    found = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
    notes = [
        "Drawn from the OpenAPI document of a service with one version, one half of it against the document.",
        "Every other request to a model of `/v2` names the one that is there; of the other drawn names none is, hence most of the 404.",
        "Each answer has a status, a content type and a body that the document describes for that operation.",
        f"By status: {found}.",
    ]
    return Section(
        title="Requests that the service's OpenAPI document allows, and others",
        headings=_HEADINGS,
        rows=[[f"{number:,}" for number in (statuses.total(), *(shares[name] for name in _HEADINGS[1:]))]],
        notes=notes,
    )


def _class(status: int) -> str:
    if status == TEMPORARY:
        return "503"
    return "any other 5xx" if status >= 500 else f"{status // 100}xx"
