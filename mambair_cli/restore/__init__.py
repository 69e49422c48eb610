"""One image in memory, restored: tiles, devices, blending."""
