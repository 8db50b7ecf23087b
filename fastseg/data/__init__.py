"""Datasets, and readers of image and annotation formats."""
