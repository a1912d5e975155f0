"""KServe as a host: CPUs move between InferenceServices. `runtime`, which alone uses its SDK, runs in the pods."""
