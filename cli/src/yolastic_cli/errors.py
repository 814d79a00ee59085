"""What ends the command with one sentence instead of a traceback."""


class CliError(Exception):
    """Shown as `yolastic: SENTENCE` on stderr; the command ends with exit code 2."""
