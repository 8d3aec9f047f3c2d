"""Measurements of what the documentation states, taken from outside: HTTP, Kafka, the store, /proc.

They print and never judge: a figure that misses its goal is shown as it came out. Not collected by pytest.
"""
