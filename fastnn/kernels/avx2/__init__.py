"""The kernels compiled for AVX2 with FMA, from the sources in the folder above."""
