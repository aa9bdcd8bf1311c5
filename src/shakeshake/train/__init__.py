"""Training: recipes, schedules, checkpoints, run directories and the training loop."""
