"""Which builds of the kernels the processor can run, and the compiler that made them."""

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
    #if defined(__clang__)
    #define FASTNN_COMPILER __VERSION__
    #elif defined(__GNUC__)
    #define FASTNN_COMPILER "GCC " __VERSION__
    #elif defined(_MSC_VER)
    #define FASTNN_TEXT_OF(x) #x
    #define FASTNN_TEXT(x) FASTNN_TEXT_OF(x)
    #define FASTNN_COMPILER "MSVC " FASTNN_TEXT(_MSC_FULL_VER)
    #else
    #define FASTNN_COMPILER "unknown"
    #endif
    """
    const char* FASTNN_COMPILER
    bint fastnn_has_avx2()
    bint fastnn_has_avx512()


#: The compiler and its version, on which rounding depends too.
COMPILER = FASTNN_COMPILER.decode()


def supported():
    """Names of the instruction sets that the processor has, best first; the last is always "baseline"."""
    names = [("avx512", fastnn_has_avx512()), ("avx2", fastnn_has_avx2()), ("baseline", True)]
    return [name for name, there in names if there]
