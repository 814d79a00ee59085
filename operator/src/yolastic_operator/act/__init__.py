"""From a decision to effects: manifests, ceilings, sizes, status and events."""
