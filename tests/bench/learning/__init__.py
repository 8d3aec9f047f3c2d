"""How well we learn beside others, all at equal staleness: a block is forecast with the weights from before it, then learned.

`stream`, `scores`, `protocol` and `worker` run in the peers' environments too: they import NumPy and nothing of ours.
"""
