"""The command line: commands, `ditto doctor`, everything that prints. May import every room; no other room imports it."""
