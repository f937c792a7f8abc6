"""Inputs and outputs of functions with options of their own."""

from fastnn.symbolic.arguments import In, Out

__all__ = ["In", "Out"]
