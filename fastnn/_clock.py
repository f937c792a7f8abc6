"""When the package was first imported: the first of its modules to run, since NumPy takes a while."""

import time

STARTED = time.perf_counter()
