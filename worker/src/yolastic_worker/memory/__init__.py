"""Memory of a batch: probed at warm-up, and the line fitted to it."""
