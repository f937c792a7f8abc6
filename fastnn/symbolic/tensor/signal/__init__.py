"""Operations on images and signals, a module a kind: ``T.signal``."""

from fastnn.symbolic.tensor.signal import conv, downsample, pool

__all__ = ["conv", "downsample", "pool"]
