"""Data sets: sources, image folders, augmentation, splits and loaders."""
