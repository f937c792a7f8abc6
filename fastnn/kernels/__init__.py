"""The engine room: compiled kernels.  Arrays that come in here are checked already; see ``fastnn.reference``."""
