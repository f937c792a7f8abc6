"""The engine: carries out what was planned, with the compiled kernels; decides nothing."""
