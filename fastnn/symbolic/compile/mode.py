"""Modes: how functions are made."""

from fastnn.symbolic.modes import Mode, get_default_mode, get_mode

__all__ = ["Mode", "get_default_mode", "get_mode"]
