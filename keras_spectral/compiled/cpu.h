/* One function compiled for several processors: built on one, a library runs on all, in the widest
   registers that each has. */

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __x86_64__
#include <cpuid.h>

/* Bits of registers that this processor calculates in and the operating system keeps. Source:
   Intel, "Software Developer's Manual", volume 1, sections 14.3 and 15.2. */
static int register_width(void) {
    static int found = 0; /* asking takes microseconds on a virtual machine */
    unsigned a, b, c, d, kept;
    if (found) return found;
    if (!__get_cpuid(1, &a, &b, &c, &d) || ~c & (bit_OSXSAVE | bit_FMA)) return found = 128;
    __asm__("xgetbv" : "=a"(kept), "=d"(d) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || ~b & bit_AVX2 || ~kept & 0x06)
        return found = 128;
    if (~b & (bit_AVX512F | bit_AVX512DQ | bit_AVX512VL) || ~kept & 0xe6) return found = 256;
    return found = 512;
}

/* Defines the function `name` as what `name_inline` is on the processor that it runs on. */
#define FOR_EACH_CPU(type, name, parameters, arguments)                                      \
    __attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma"))) static type name##_512     \
        parameters { return name##_inline arguments; }                                       \
    __attribute__((target("avx2,fma"))) static type name##_256 parameters {                  \
        return name##_inline arguments;                                                      \
    }                                                                                        \
    type name parameters {                                                                   \
        if (register_width() == 512) return name##_512 arguments;                            \
        if (register_width() == 256) return name##_256 arguments;                            \
        return name##_inline arguments;                                                      \
    }
#else
#define FOR_EACH_CPU(type, name, parameters, arguments)                                      \
    type name parameters { return name##_inline arguments; }
#endif
