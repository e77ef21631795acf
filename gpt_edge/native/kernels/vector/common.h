/* What every kind of vector shares. */
#pragma once

#include <stdint.h>
#include <string.h>

#ifdef PLAIN_C /* nothing to win, and compilers take minutes */
#define INLINE static __attribute__((unused))
#define UNROLL
#define NO_UNROLL
#else
/* values stay in registers only where functions are part of their callers */
#define INLINE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 16")
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif

enum { LANES = 16 };
