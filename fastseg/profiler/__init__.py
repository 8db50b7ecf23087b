"""Latency and memory of a model, stage by stage."""
