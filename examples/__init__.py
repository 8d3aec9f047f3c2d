"""Runnable pipelines, one folder each."""
