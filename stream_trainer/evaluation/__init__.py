"""Parts of the prequential evaluation: baselines, scores of a window, calibration, segments. See `prequential`."""
