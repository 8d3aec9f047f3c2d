"""The dashboard of `stream-trainer monitor`: drift over time, what is behind it, learning, versions and alerts, live.

It only reads: a `board.Board` looks at its sources every few seconds and holds what it found, `app` answers from that,
and `events` tells open pages what has changed. A source that fails leaves what was known, and the page says so. Needs
neither Spark nor Kafka: `live` brings the real sources, and `server` runs it in a thread.
"""
