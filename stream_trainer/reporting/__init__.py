"""How good a pipeline's forecasts were, for people: curves read from the store, drawn as PNG and as one HTML page."""
