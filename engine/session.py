"""ONNX Runtime sessions: one thread each when headgate divides the CPUs, ONNX Runtime's defaults otherwise."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


class ModelError(ValueError):
    """A model file is missing, cannot be loaded, or does not fit into its chain."""


def load_session(path: Path, *, single_threaded: bool) -> onnxruntime.InferenceSession:
    """The session of the ONNX file at `path`. Raises ModelError.

    `single_threaded`: the caller's thread does all of the work and never spins, so that the CPU time of an inference is
    the CPU time of its thread. Otherwise: ONNX Runtime's defaults, a pool of spinning threads for each session.
    """
    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if single_threaded:
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the binding raises a dozen types without a common base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path} is not a model that ONNX Runtime can load: {reason}") from None
