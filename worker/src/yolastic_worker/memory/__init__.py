"""Memory of a batch: planned, probed, measured -> how many images fit."""
