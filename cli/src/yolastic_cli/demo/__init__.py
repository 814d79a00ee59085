"""`yolastic demo`: night, rush hour and night again on this machine, in under three minutes."""
