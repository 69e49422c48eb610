"""Networks as graphs that run without this package."""
