"""KServe: CPUs move between InferenceServices, in place. The SDK of KServe is not used here."""
