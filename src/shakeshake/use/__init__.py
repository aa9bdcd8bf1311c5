"""A trained run in use: predictions for files, models for other programs. Knows all that it takes to train one."""
