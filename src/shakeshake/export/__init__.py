"""From a trained network to one that is only used: folded, merged, written in other formats."""
