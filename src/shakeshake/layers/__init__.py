"""The idea itself: rules, the mixing of branches, the layer. Knows torch alone."""
