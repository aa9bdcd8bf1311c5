"""The measurements behind the numbers in README.md, docs/ and results/: `python -m benchmarks` lists them."""
