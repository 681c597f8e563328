"""The published networks in torch, names and shapes as in the published checkpoints."""
