"""One process an accelerator: HTTP in, admit, decode, batch, infer, postprocess, reply."""

__version__ = "0.1.0"
