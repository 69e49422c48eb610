"""Choose a checkpoint, download it, verify it, and load it strictly."""
