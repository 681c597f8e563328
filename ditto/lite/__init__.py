"""The lite system: small networks and a mesh renderer, on the CPU, inside the package."""
