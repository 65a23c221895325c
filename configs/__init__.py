"""Named presets, and the way to run one from Python.

Example:
    >>> from configs import load_preset, run
    >>> config = load_preset("fusion_hcrl_sa", "agent.learning_rate=2e-3")
    >>> results = run(config)

Importing this package costs nothing; `register` and the functions that need the configs import them.
"""

from __future__ import annotations

from configs.launch import load_preset, register, run

__all__ = ["load_preset", "register", "run"]
