"""The configuration: ``theano.configparser``."""

from fastnn.symbolic.configuration import Configuration as TheanoConfigParser
from fastnn.symbolic.configuration import config

change_flags = config.change_flags

__all__ = ["TheanoConfigParser", "change_flags", "config"]
