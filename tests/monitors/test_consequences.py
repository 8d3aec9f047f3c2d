"""One change opens one alert."""

from monitors.alerts import Alert, key_of
from monitors.consequences import telling, together
from monitors.findings import Against, Finding, Kind, State

from .worlds import alert


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
