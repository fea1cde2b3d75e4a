"""Unsupervised domain adaptation: a labelled source, an unlabelled target, and methods that learn from both."""
