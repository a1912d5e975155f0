"""The reference ONNX engine: many pipelines on one machine, one CPU budget."""
