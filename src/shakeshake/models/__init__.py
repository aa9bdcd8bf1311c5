"""The paper's networks, the networks it compares with, and shakeify for other networks."""
