"""What the processor can do: which of the builds of the kernels may run on it."""

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    static int fastnn_has_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    }
    static int fastnn_has_avx512(void) {
        return fastnn_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int fastnn_has_avx2(void) { return 0; }
    static int fastnn_has_avx512(void) { return 0; }
    #endif
    """
    bint fastnn_has_avx2()
    bint fastnn_has_avx512()


def supported():
    """Names of the instruction sets that the processor has, the best first; "baseline" is always the last."""
    names = [("avx512", fastnn_has_avx512()), ("avx2", fastnn_has_avx2()), ("baseline", True)]
    return [name for name, there in names if there]
