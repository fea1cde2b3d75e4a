"""From a recipe and data to a run: trained, recorded, resumable. Recipes are readable without loading PyTorch."""
