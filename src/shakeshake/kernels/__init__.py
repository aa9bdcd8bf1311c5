"""Fused training kernels for the CPU."""
