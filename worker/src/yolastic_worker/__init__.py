"""One process an accelerator: HTTP in, admit, decode, batch, infer, postprocess, reply."""
