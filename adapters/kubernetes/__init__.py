"""What the adapters for clusters share."""
