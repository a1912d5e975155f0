"""Pure decisions: no clock, no IO, no Kubernetes, no serving framework."""
