"""The trainer: recipes, schedule, checkpoints, the run directory, the loop. Knows core, models and data."""
