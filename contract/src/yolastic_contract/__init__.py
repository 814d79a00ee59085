"""The words both sides of Yolastic share: resources, names, metrics and control messages."""
