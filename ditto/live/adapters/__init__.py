"""Sessions as other frameworks want them. Each module needs its framework and nothing else does."""
