"""Restore many images: which ones, where results go, what became of each, and the journal of it."""
