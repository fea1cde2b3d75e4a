"""Predictions to figures, each with a confidence interval and the number of test images."""
