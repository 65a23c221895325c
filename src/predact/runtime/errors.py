"""The one error type that a user can cause."""


class PredactError(Exception):
    """A mistake in input, configuration or artifacts: one line that names the value and the way out.

    `train.py`, `verify_setup.py` and `predact` print it without a traceback and exit with 1.
    """
