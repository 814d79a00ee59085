"""Pure decisions: from an observation to a decision, with the time as an argument."""
