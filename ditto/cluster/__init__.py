"""Many recordings at once, and many machines: `ditto batch`, and `ditto serve` on Ray (docs/cluster.md)."""
