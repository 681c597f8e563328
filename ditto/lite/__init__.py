"""The lite system: small networks and a mesh renderer, on the CPU, inside the package.

May import the rooms below it (docs/architecture.md), never `full`, `live` or `app`.
"""
