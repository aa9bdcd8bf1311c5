"""Images in memory: where they come from, and the batches made of them. Knows nothing of models."""
