"""The engine: carries out a plan with the compiled kernels; decides nothing."""
