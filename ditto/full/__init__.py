"""The published Ditto: its networks, what lies between them, and the conversion of its checkpoints. Needs torch.

May import the rooms below it (docs/architecture.md), never `lite`, `live` or `app`.
"""
