"""Translate headgate's decisions into the resources of each serving framework."""
