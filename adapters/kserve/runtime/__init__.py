"""A KServe model server that serves several models on one CPU budget. Only this package imports KServe's SDK."""
