"""Measures what ditto does and how fast: README.md."""

from ditto.commands import started

started(__name__)
