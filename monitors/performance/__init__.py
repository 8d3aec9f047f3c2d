"""How well the answers turned out: realised loss, concept change, estimates without labels, freshness and silence.

Pure and small: `tally` counts joined examples in Spark's workers, `past` keeps what is usual, `dependence`
and `levels` how windows differ and go together, `step` says what a closed window shows, `presence` looks at the clock. Nothing here reads a topic, a store or the time.
"""
