"""Lightning modules: what is learned from what, with which loss, optimiser and metrics."""
