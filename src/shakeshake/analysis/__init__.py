"""What shaking did to a trained network (paper, section 3). By hooks only: the networks know nothing of it."""
