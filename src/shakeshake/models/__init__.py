"""The networks. Know core; a network's name is its specification."""
