"""The Open Inference Protocol, version 2, over HTTP: JSON and binary tensors. Bytes in, arrays out, and back.

https://github.com/kserve/open-inference-protocol, with the binary tensor data extension.
"""
