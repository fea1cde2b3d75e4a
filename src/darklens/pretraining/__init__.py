"""Losses and views of learning without labels, as pure functions of tensors."""
