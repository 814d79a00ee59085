"""The only room that knows a runtime: uint8 images in, raw outputs out."""
