"""Weighs the detectors, window by window."""
