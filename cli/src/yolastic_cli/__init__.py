"""The `yolastic` command for people."""
