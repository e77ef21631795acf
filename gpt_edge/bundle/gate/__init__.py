"""The gate: a bundle's graph is checked here before onnxruntime sees a byte of it."""
