"""River's learners and streams, deep-river's net, and the plots: each runs in an environment of its own.

Nothing here may import this project, save the parts of `tests.bench.learning` that need only NumPy.
"""
