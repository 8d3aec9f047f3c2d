"""One change opens one alert."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from monitors.alerts import Alert, WindowSpan, key_of
from monitors.consequences import telling, together
from monitors.findings import Against, Finding, Kind, State
from monitors.life import Life, LifePolicy, Seen, step

from .worlds import START, WINDOW, alert


def finding(
    feature: str, segment: str = "", *, kind: Kind = "drift", state: State = "drift", p_value: float = 1e-9
) -> Finding:
    return Finding(kind=kind, feature=feature, segment=segment, against="learned", state=state, p_value=p_value)


def opened(of: Finding) -> dict[str, Alert]:
    return {key_of(of): alert(alert_key=key_of(of), kind=of.kind, feature=of.feature, segment=of.segment)}


WHOLE, SEGMENT, ALL = finding("x"), finding("x", "s=a"), finding("", kind="multivariate")


def test_a_segment_and_all_features_together_follow_from_a_feature() -> None:
    other = finding("z", "s=a")
    assert telling([WHOLE, SEGMENT, ALL, other], {}) == [WHOLE, other]


def test_by_themselves_they_are_told() -> None:
    quiet = finding("x", state="quiet")
    assert telling([quiet, SEGMENT, ALL], {}) == [quiet, SEGMENT, ALL]


def test_features_together_are_told_though_one_of_them_differs_from_the_baseline_alone() -> None:
    followed = msgspec.structs.replace(WHOLE, against="baseline")
    assert telling([followed, ALL], opened(followed)) == [followed, ALL]
    beside = msgspec.structs.replace(ALL, against="baseline")
    assert telling([followed, beside], {}) == [followed]


def test_what_is_open_goes_on_and_ends() -> None:
    assert telling([WHOLE, SEGMENT], opened(SEGMENT)) == [WHOLE, SEGMENT]
    over = finding("x", "s=a", state="quiet")
    assert telling([WHOLE, over], opened(SEGMENT)) == [WHOLE, over]


def test_no_segment_opens_while_its_feature_is_open() -> None:
    quiet = finding("x", state="quiet")
    assert telling([quiet, SEGMENT], opened(WHOLE)) == [quiet]


def test_all_directions_are_one_test_that_pays_for_all_of_them() -> None:
    def projection(i: int, p_value: float, state: State = "quiet", against: Against = "learned") -> Finding:
        found = finding(f"_projection/{i}", kind="multivariate", state=state, p_value=p_value)
        return Finding(**{**{f: getattr(found, f) for f in found.__struct_fields__}, "against": against})

    learned, baseline = together(
        [
            projection(0, 0.5),
            projection(1, 0.01),
            projection(2, 1.0, "not enough data"),
            projection(0, 0.9, against="baseline"),
        ]
    )[::-1]
    assert (learned.feature, learned.p_value, learned.state) == ("", 0.02, "quiet")
    assert (baseline.against, baseline.p_value) == ("baseline", 0.9)
    assert together([projection(0, 1.0, "not enough data")])[0].state == "not enough data"
    assert together([]) == []


def test_an_alert_about_a_version_ends_once_that_version_is_not_told_apart() -> None:
    old = opened(finding("x", "_version=3"))
    old = {key: msgspec.structs.replace(one, segment="_version=3") for key, one in old.items()}
    asked = finding("_output", kind="prediction", state="quiet")
    [gone] = [f for f in telling([asked], old) if f.segment]
    assert (key_of(gone), gone.state, gone.p_value) == ("drift/learned/x/_version", "quiet", 1.0)
    still = finding("x", "_version=3", state="quiet", p_value=0.02)
    assert telling([asked, still], old) == [asked, still]
    longer = msgspec.structs.replace(asked, windows=4)
    assert telling([longer], old) == [longer]
    assert telling([finding("_label", kind="label", state="quiet")], old)[1:] == []


def hole(feature: str, *others: str, segment: str = "", state: State = "drift", p_value: float = 1e-9) -> Finding:
    """Values of a feature are missing, in the same rows as those of others."""
    found = finding(feature, segment, kind="quality", state=state, p_value=0.5 if state == "quiet" else p_value)
    return msgspec.structs.replace(found, together=tuple(sorted({feature, *others})) if others else ())


def quiet(*features: str) -> list[Finding]:
    return [hole(feature, state="quiet") for feature in features]


def walk(rounds: Sequence[Sequence[Finding]]) -> list[list[tuple[str, str, tuple[str, ...]]]]:
    """What is published, round by round: key, status and columns."""
    life, policy = Life(), LifePolicy(repeat_every=timedelta(days=1), cooldown=0 * WINDOW)
    found: list[list[tuple[str, str, tuple[str, ...]]]] = []
    for i, findings in enumerate(rounds):
        span = WindowSpan(start=START + i * WINDOW, end=START + (i + 1) * WINDOW, rows=1)
        seen = Seen(pipeline="p", window=span, model_version=1, offsets={})
        life, events = step(life, telling(findings, life.open), seen, policy)
        found.append([(event.alert_key, event.status, event.features) for event in events])
        assert all(event.feature == event.alert_key.split("/")[2] for event in events)
    return found


ABC = [hole("a", "b", "c"), hole("b", "a", "c"), hole("c", "a", "b")]


def test_columns_that_go_missing_together_open_one_alert_that_names_them() -> None:
    other = hole("x")
    assert walk([[*ABC, other]]) == [
        [("quality/learned/a", "opened", ("a", "b", "c")), ("quality/learned/x", "opened", ())]
    ]


def test_a_column_that_joins_is_told_once_and_one_that_leaves_changes_nothing() -> None:
    two, leaves = [hole("b", "c"), hole("c", "b")], [*quiet("a", "b"), hole("c")]
    found = walk([[*quiet("a"), *two], ABC, ABC, leaves, ABC, quiet("a", "b", "c"), quiet("a", "b", "c")])
    assert found == [
        [("quality/learned/b", "opened", ("b", "c"))],
        [("quality/learned/b", "updated", ("b", "c", "a"))],
        [],
        [],
        [],
        [],
        [("quality/learned/b", "resolved", ("b", "c", "a"))],
    ]


def test_one_goes_on_while_any_of_its_columns_does_and_all_end_with_it() -> None:
    last = [*quiet("a", "b"), hole("c")]
    assert walk([ABC, last, last, last, quiet("a", "b", "c"), quiet("a", "b", "c")])[1:] == [
        *[[]] * 4,
        [("quality/learned/a", "resolved", ("a", "b", "c"))],
    ]


def test_a_column_that_is_told_already_takes_in_those_that_join_it() -> None:
    assert walk([[hole("c")], ABC]) == [
        [("quality/learned/c", "opened", ())],
        [("quality/learned/c", "updated", ("a", "b", "c"))],
    ]


def test_two_that_were_open_apart_go_on_apart_and_a_third_joins_one_of_them() -> None:
    ended = [*quiet("a", "b"), hole("c")]
    assert walk([[hole("b"), hole("c")], ABC, ended, ended])[1:] == [
        [("quality/learned/b", "updated", ("a", "b", "c"))],
        [],
        [("quality/learned/b", "resolved", ("a", "b", "c"))],
    ]


def test_segments_have_their_own_and_open_none_beside_any_column_of_all_rows() -> None:
    parts = [hole("b", "c", segment="s=a"), hole("c", "b", segment="s=a")]
    assert walk([parts]) == [[("quality/learned/b/s=a", "opened", ("b", "c"))]]
    assert walk([ABC, [*quiet("a", "b", "c"), *parts]]) == [[("quality/learned/a", "opened", ("a", "b", "c"))], []]


def test_after_its_end_windows_from_before_open_none_of_its_columns() -> None:
    life, _ = step(
        Life(),
        telling(ABC, {}),
        Seen(pipeline="p", window=WindowSpan(start=START, end=START + WINDOW, rows=1), model_version=1, offsets={}),
        LifePolicy(resolve_after=1),
    )
    later = Seen(
        pipeline="p",
        window=WindowSpan(start=START + WINDOW, end=START + 2 * WINDOW, rows=1),
        model_version=1,
        offsets={},
    )
    policy = LifePolicy(resolve_after=1, cooldown=timedelta(hours=1))
    life, events = step(life, telling(quiet("a", "b", "c"), life.open), later, policy)
    assert [event.status for event in events] == ["resolved"]
    assert "a, b, c: no difference any more" in events[0].message
    assert step(life, telling([hole("b", "c"), hole("c", "b")], life.open), later, policy)[1] == []


def test_what_it_says_names_the_columns_of_this_round() -> None:
    told = telling(ABC, {})
    assert {finding.feature for finding in told} == {"a"}
    (one,) = opened(hole("a")).values()
    is_open = {one.alert_key: msgspec.structs.replace(one, kind="quality", features=("a", "c"))}
    alone = telling([*quiet("a"), hole("c")], is_open)
    assert [(f.feature, f.together) for f in alone if f.state == "drift"] == [("a", ("c",))]
