"""Experiments: what is tried, how it is repeated and recorded, and whether it can be believed.

A use case (`UseCase`) with its `Parameters` is run in `Trial`s, each in a sandbox of its own,
with a `Recorder` that writes a bundle as it goes.  Nothing here imports pandas or matplotlib;
what the records show is `testbed.report`'s business.
"""

from testbed.run.parameters import Parameters, parameter
from testbed.run.process import NodeProcess
from testbed.run.recorder import DiskFullError, Recorder
from testbed.run.usecase import Claim, Figure, MissingData, Trial, UseCase
from testbed.verdict import Verdict

__all__ = [
    "Claim",
    "DiskFullError",
    "Figure",
    "MissingData",
    "NodeProcess",
    "Parameters",
    "Recorder",
    "Trial",
    "UseCase",
    "Verdict",
    "parameter",
]
