"""LiquidNet: a network emulation testbed with real kernels, real protocols and real packets."""

__version__ = "0.1.0"
