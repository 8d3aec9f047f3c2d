"""Will this flight arrive at least 15 minutes late? Asked at its scheduled departure, with what is known then.

Left out on purpose: the month, which a single year never repeats (it would only name the drift), and wind gusts,
which are missing for three flights in four.
"""

from datetime import timedelta

from stream_trainer import BinaryLabel, Categorical, Contract, Join, Numeric, Pipeline
from stream_trainer.monitoring import Monitoring

CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
ORIGINS = ("EWR", "JFK", "LGA")

contract = Contract(
    features=[
        Numeric("dep_hour", low=0, high=24),
        Numeric("day_of_week", low=0, high=6),
        Numeric("distance", low=0),
        Numeric("scheduled_minutes", low=0),
        Categorical("carrier", vocabulary=CARRIERS),
        Categorical("origin", vocabulary=ORIGINS),
        Categorical("dest", buckets=256),
        Numeric("temp", low=-80, high=140, optional=True),
        Numeric("dewp", low=-80, high=140, optional=True),
        Numeric("humid", low=0, high=100, optional=True),
        Numeric("wind_speed", low=0, high=200, optional=True),
        Numeric("precip", low=0, optional=True),
        Numeric("pressure", low=800, high=1100, optional=True),
        Numeric("visib", low=0, optional=True),
    ],
    label=BinaryLabel("late"),
    key="flight_id",
    event_time="scheduled_at",
    segments=["origin"],
)
# The longest flight of the year landed 28 hours after its scheduled departure; one that never lands teaches nothing.
join = Join(on="key", horizon=timedelta(days=2), on_timeout=None)
# A day of flights is judged against the week that was learned: it has every hour in it, but only one day of the week.
# All flights of a day share its weather, so no day is quite like another: two weeks show how much days usually differ.
monitoring = Monitoring(
    window=timedelta(days=1),
    lateness=timedelta(hours=1),
    false_alarm_every=timedelta(days=30),
    usual_windows=14,
    unwatched=("day_of_week",),
)
pipeline = Pipeline(name="flights", contract=contract, join=join, monitoring=monitoring, reference_hours=7 * 24)
