"""Generators of random numbers, for tests."""

import torch


def acting(make, seed=0):
    """The network that `make` makes, all of whose parameters matter: those that begin at zero too, but for those of motion."""
    torch.manual_seed(seed)
    network = make().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "motion.output" not in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


def random(*shape, seed=0):
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
