"""Joins predictions with the labels that come later; `docs/joining.md` says by which rules."""
