"""Trained networks in use: fusing, the inference pipeline, temperature calibration, prediction for image files."""
