"""Adapters of sessions to other frameworks. Each module imports its framework; no other module does."""
