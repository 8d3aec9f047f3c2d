"""Online learning in which a model is a pure function of the log."""
