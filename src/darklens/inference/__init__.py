"""A trained model as one portable folder, and what it predicts."""
