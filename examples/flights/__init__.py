"""The main job: real flights of 2013, whether each will arrive late."""
