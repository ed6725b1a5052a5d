"""One tree of exceptions. Each says what went wrong, where, what was expected against what was got, and what to do."""

from __future__ import annotations


class EvoError(Exception):
    """Base of every error that evo_tvm raises on purpose.

    Parameters
    ----------
    what: one sentence: what is wrong.
    where: the file, node, tensor or option it is about.
    expected, got: the two sides of a mismatch.
    hint: what to do next.
    """

    #: Exit status of the command line: 1, the work failed; 2, wrong use.
    exit_status = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.got, self.hint = what, where, expected, got, hint
        text = f"{where}: {what}" if where is not None else what
        if expected is not None or got is not None:
            text += f" (expected {expected}, got {got})"
        if hint:
            text += f"\n{hint}"
        super().__init__(text)


class UsageError(EvoError):
    """An option or argument that cannot be right, whatever the model."""

    exit_status = 2


class ModelError(EvoError):
    """The model file is missing, unreadable, or not a valid ONNX model."""


class UnsupportedOperatorError(ModelError):
    """The model has operators that evo_tvm cannot import; all of them are listed."""


class TargetError(UsageError):
    """Unknown target, triple, CPU or feature."""


class CompileError(EvoError):
    """The compiler, or the linker that it calls, failed."""


class ArtifactError(EvoError):
    """An .evo file that is truncated, altered, too new, or built for another machine."""


class InputError(EvoError):
    """Wrong name, shape, dtype or count of run-time inputs."""


class BoardError(EvoError):
    """A board or tracker that cannot be reached, refuses what it is asked, or vanishes while it works."""


class MissingExtraError(EvoError):
    """A command or function whose optional dependencies are not installed."""
