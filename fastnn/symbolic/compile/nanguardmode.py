"""The mode that stops at bad numbers."""

from fastnn.symbolic.modes import NanGuardMode

__all__ = ["NanGuardMode"]
