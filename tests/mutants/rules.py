"""Proofs by rule that a survivor is equivalent."""


def equivalent(kernel, outcome):
    """A reason, or None."""
    return None
