"""Which builds of the kernels the processor can run, the compiler that made them, and how near the cores are."""

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__clang__) && defined(_MSC_VER)
    #include <cpuid.h>
    /* Clang's own answer is in a library that MSVC's linker does not take.  Returns whether register `which` of a leaf
       has all these bits, and the system keeps all these parts of the processor's state. */
    static int fastnn_has(int leaf, int which, unsigned bits, unsigned state) {
        unsigned registers[4], low, high;
        if (!__get_cpuid_count(1, 0, registers, registers + 1, registers + 2, registers + 3)
            || !(registers[2] >> 27 & 1))
            return 0;
        __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return (low & state) == state
            && __get_cpuid_count(leaf, 0, registers, registers + 1, registers + 2, registers + 3)
            && (registers[which] & bits) == bits;
    }
    /* FMA; AVX2 and BMI2. */
    static int fastnn_has_avx2(void) {
        return fastnn_has(1, 2, 1u << 12, 0x06) && fastnn_has(7, 1, 1u << 5 | 1u << 8, 0x06);
    }
    /* F, DQ, CD, BW, VL. */
    static int fastnn_has_avx512(void) {
        return fastnn_has_avx2() && fastnn_has(7, 1, 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31, 0xe6);
    }
    #elif defined(__x86_64__) && defined(__GNUC__)
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

    #if defined(_OPENMP) && (defined(__GNUC__) || defined(__clang__))
    #include <omp.h>
    #ifdef _WIN32
    #include <windows.h>
    #define fastnn_yield SwitchToThread
    #else
    #include <sched.h>
    #define fastnn_yield sched_yield
    #endif
    /* Two threads pass a number to and fro, and each adds 1.  One that waits long lets others have the processor: the
       system may have both threads on the same one.  */
    static double fastnn_handover_seconds(int n_series, int n_passes) {
        int number[32] __attribute__((aligned(128))) = {0};  /* has its cache line, and the next, to itself */
        double best = -1.0;
        #pragma omp parallel num_threads(2)
        if (omp_get_num_threads() == 2) {
            const int me = omp_get_thread_num();
            int mine = me;
            for (int series = 0; series < n_series; ++series) {
                const double start = omp_get_wtime();
                for (int pass = 0; pass < n_passes; ++pass, mine += 2) {
                    for (int waited = 1; __atomic_load_n(number, __ATOMIC_ACQUIRE) != mine; ++waited)
                        if (waited % 4096 == 0)
                            fastnn_yield();
                    __atomic_store_n(number, mine + 1, __ATOMIC_RELEASE);
                }
                const double seconds = (omp_get_wtime() - start) / (2.0 * n_passes);
                if (me == 0 && (best < 0.0 || seconds < best))
                    best = seconds;
            }
        }
        return best;
    }
    #else
    static double fastnn_handover_seconds(int n_series, int n_passes) { return -1.0; }
    #endif
    """
    const char* FASTNN_COMPILER
    bint fastnn_has_avx2()
    bint fastnn_has_avx512()
    double fastnn_handover_seconds(int n_series, int n_passes)


#: The compiler and its version, on which rounding depends too.
COMPILER = FASTNN_COMPILER.decode()


def supported():
    """Names of the instruction sets that the processor has, best first; the last is always "baseline"."""
    names = [("avx512", fastnn_has_avx512()), ("avx2", fastnn_has_avx2()), ("baseline", True)]
    return [name for name, there in names if there]


def handover_seconds(int n_series=20, int n_passes=250):
    """Seconds for a cache line from one of two threads to the other, of the fastest series; negative without a second.

    It takes less than a millisecond on near cores; the GIL is held, so that no process is forked meanwhile.
    """
    return fastnn_handover_seconds(n_series, n_passes)
