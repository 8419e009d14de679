"""A model runs on data while hooks look at its layers."""

import contextlib

import torch

from quaver.graph import in_eval_mode
from quaver.model import call_with


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
