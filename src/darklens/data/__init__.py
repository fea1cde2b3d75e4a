"""The dataset on disk, readers for every layout in the wild, splits, preprocessing, augmentation, loaders."""
