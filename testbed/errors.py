"""The exceptions of the testbed: one tree, and the exit status each one ends a command with.

    TestbedError                 something the testbed can name; exit status 1
     +-- UserError               a mistake in what the user wrote; exit status 2
     |    +-- ParameterError     an unknown parameter, a value of the wrong type or unit
     |    +-- TopologyError      a topology that cannot be built
     +-- MachineError            the machine lacks a privilege, a kernel feature or a program
     |    +-- PrivilegeError
     |    +-- FeatureError
     +-- ExperimentError         an experiment failed while it ran; what it recorded is kept
     |    +-- NodeProcessError   a process in a node died
     |    +-- EngineError        a link engine died
     +-- KernelError             the kernel refused a request that should have worked

Every message says what was wrong, where, and what to do.  Nothing in the testbed swallows an
error to go on without what was asked for.
"""

from __future__ import annotations


class TestbedError(Exception):
    """Root of every error the testbed raises on purpose.

    `message` is one line: what was wrong and where.  `remedy`, when there is one, is what the
    reader can do about it.
    """

    __test__ = False  # its name begins with "Test"; pytest must not collect it
    exit_status = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}; {remedy}" if remedy else message)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the keyword-only remedy (errors cross process borders)."""
        return (_rebuild, (type(self), self.message, self.remedy, self.__dict__.copy()))


def _rebuild(
    cls: type[TestbedError], message: str, remedy: str, state: dict[str, object]
) -> TestbedError:
    error = cls.__new__(cls)
    TestbedError.__init__(error, message, remedy=remedy)
    error.__dict__.update(state)
    return error


class UserError(TestbedError):
    """The user wrote something that cannot be meant."""

    exit_status = 2


class ParameterError(UserError):
    """An unknown parameter, or a value of the wrong type, unit or range."""


class TopologyError(UserError):
    """A topology that cannot be built as written."""


class MachineError(TestbedError):
    """This machine cannot do what was asked; the remedy says what would let it."""

    exit_status = 2


class PrivilegeError(MachineError):
    """A privilege is missing."""


class FeatureError(MachineError):
    """A kernel feature or a program is missing."""


class ExperimentError(TestbedError):
    """An experiment failed while it ran."""


class NodeProcessError(ExperimentError):
    """A process that the experiment needs died inside a node."""


class EngineError(ExperimentError):
    """A link engine died or lost its interfaces."""


class KernelError(TestbedError, OSError):
    """The kernel refused a request; `errno` says how."""

    def __init__(self, errno: int, message: str, *, remedy: str = "") -> None:
        TestbedError.__init__(self, message, remedy=remedy)
        self.errno = errno
