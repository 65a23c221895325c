"""Captures of CAN traffic become frames, windows and graphs."""
