"""Measure restored images, and make degraded ones to measure and to train with."""
