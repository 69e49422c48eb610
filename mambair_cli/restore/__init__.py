"""Restore one image in memory: tiles, devices, blending."""
