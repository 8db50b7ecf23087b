"""Readers and writers of image and annotation formats, without torch."""
