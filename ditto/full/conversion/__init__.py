"""The published checkpoints become a bundle: `ditto bundle convert --from DIR`."""

from ditto.full.conversion.bundling import convert

__all__ = ["convert"]
