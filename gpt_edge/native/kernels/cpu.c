/* What the CPU can do, and what the system lets a process use of it. */
#include "cpu.h"

#include "guard.h"

#if IS_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { AVX_STATE = 0x6, AVX512_STATE = 0xe6, TILE_STATE = 0x60000 }; /* of XCR0 */

static uint64_t enabled_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux grants tiles only to a process that asks for them (asm/prctl.h). */
static int may_use_tiles(void) {
#ifdef __linux__
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA);
#else
    return 0;
#endif
}

static int has_all(uint32_t bits, uint32_t wanted) { return (bits & wanted) == wanted; }

static int find_bodies(const Body *bodies[MAX_BODIES]) {
    /* bits of Intel's manual, volume 2, CPUID */
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27, F16C = 1 << 29 };                   /* 1, ECX */
    enum { AVX2 = 1 << 5, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 }; /* 7, EBX */
    const uint32_t avx512vl = 1u << 31, avx512vnni = 1 << 11;                    /* EBX, ECX */
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25, AVXVNNI = 1 << 4 };           /* EDX; 7.1, EAX */
    uint32_t a, b, c, d, a1 = 0, b1, c1, d1;
    int n = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, FMA | OSXSAVE | F16C)) return 0;
    const uint64_t state = enabled_state();
    if ((state & AVX_STATE) != AVX_STATE || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!has_all(b, AVX2)) return 0;
    if (a >= 1) __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
    const int has_512 = (state & AVX512_STATE) == AVX512_STATE && has_all(c, avx512vnni) &&
                        has_all(b, AVX512F | AVX512DQ | AVX512BW | avx512vl);
    const int has_amx = (state & TILE_STATE) == TILE_STATE && has_all(d, AMX_TILE | AMX_INT8);
    if (has_512 && has_amx && may_use_tiles()) bodies[n++] = &body_amx;
    if (has_512) bodies[n++] = &body_avx512;
    if (has_all(a1, AVXVNNI)) bodies[n++] = &body_avxvnni;
    bodies[n++] = &body_avx2;
    return n;
}
#elif IS_ARM
#ifdef __linux__
#include <sys/auxv.h>

static int find_bodies(const Body *bodies[MAX_BODIES]) {
    enum { HAS_DOTPROD = 1 << 20, HAS_I8MM = 1 << 13 }; /* asm/hwcap.h */
    int n = 0;
    const int has_dotprod = (getauxval(AT_HWCAP) & HAS_DOTPROD) != 0;
    if (has_dotprod && getauxval(AT_HWCAP2) & HAS_I8MM) bodies[n++] = &body_i8mm;
    if (has_dotprod) bodies[n++] = &body_dotprod;
    bodies[n++] = &body_neon;
    return n;
}
#elif defined(__APPLE__)
#include <sys/sysctl.h>

static int has_feature(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(name, &value, &size, NULL, 0) && value;
}

static int find_bodies(const Body *bodies[MAX_BODIES]) {
    int n = 0;
    const int has_dotprod = has_feature("hw.optional.arm.FEAT_DotProd");
    if (has_dotprod && has_feature("hw.optional.arm.FEAT_I8MM")) bodies[n++] = &body_i8mm;
    if (has_dotprod) bodies[n++] = &body_dotprod;
    bodies[n++] = &body_neon;
    return n;
}
#else
static int find_bodies(const Body *bodies[MAX_BODIES]) {
    bodies[0] = &body_neon;
    return 1;
}
#endif
#else
static int find_bodies(const Body *bodies[MAX_BODIES]) { return (void)bodies, 0; }
#endif

int runnable_bodies(const Body *bodies[MAX_BODIES]) {
    const int n = find_bodies(bodies);
    bodies[n] = &body_scalar; /* only by its name */
    return n + 1;
}
