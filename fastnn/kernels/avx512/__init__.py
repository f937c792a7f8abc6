"""The kernels compiled for AVX-512, from the sources in the folder above."""
