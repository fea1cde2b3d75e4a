"""One YAML file for each system."""
