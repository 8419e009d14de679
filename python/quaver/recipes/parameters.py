"""Parameters that recipes give to a module of a copied model."""

import torch


def give(module, name, value):
    """A parameter of the module's own, also where it has shared one with other modules."""
    old = getattr(module, name)
    setattr(module, name, torch.nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad))
