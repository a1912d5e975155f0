"""Where metrics are read from. Each kind is registered as anybody's plug-in would register it."""
