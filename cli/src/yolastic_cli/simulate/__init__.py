"""The closed loop on paper: real batching, admission and decisions on a fast clock, with a device that is simulated."""
