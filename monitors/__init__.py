"""Watches what is being served: drift against what the served version has learned, alerts, and reports."""
