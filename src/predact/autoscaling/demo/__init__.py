"""Policies side by side on the same requests: who takes part, on the screen, as pictures."""
