"""The one error a user can cause, and the exit codes every command shares."""

GOOD, VERDICT_FAILED, WRONG_INPUT, NOT_AVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130


class ConvkitError(Exception):
    """The user's input is wrong: what, where, and what to do about it (exit 2).

    Anything that is not a ConvkitError is a bug and keeps its traceback.
    """

    exit_code = WRONG_INPUT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class NotAvailableError(ConvkitError):
    """An engine or device is missing here; the hint is the line that installs it (exit 3)."""

    exit_code = NOT_AVAILABLE


class VerdictError(ConvkitError):
    """A gate, parity or accuracy verdict failed (exit 1)."""

    exit_code = VERDICT_FAILED
