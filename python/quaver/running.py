"""Models run on data: a batch at a time, and while hooks look at their layers."""

import contextlib
from collections.abc import Mapping

import torch

from quaver.graph import in_eval_mode


def call_with(model, batch):
    """A batch is a tensor, a tuple of arguments, or a dict of them by name."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def watch(model, batches, hooks, words):
    """Calls a model with each batch, in eval mode and without gradients; then removes the hooks, which are handles.

    Raises ValueError, with these words, where there are no batches.
    """
    with contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        stack.enter_context(in_eval_mode(model))
        stack.enter_context(torch.no_grad())
        count = 0
        for batch in batches:
            call_with(model, batch)
            count += 1
    if count == 0:
        raise ValueError(words)
