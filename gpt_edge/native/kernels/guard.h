/* Instructions of one file: which CPUs it is for, and how its compiler is told. */
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define IS_X86 1
#else
#define IS_X86 0
#endif
#if defined(__aarch64__) && !defined(__ARM_BIG_ENDIAN)
#define IS_ARM 1
#else
#define IS_ARM 0
#endif

#define DO_PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define TARGET(features) \
    DO_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET DO_PRAGMA(clang attribute pop)
#else
#define TARGET(features) DO_PRAGMA(GCC push_options) DO_PRAGMA(GCC target(features))
#define END_TARGET DO_PRAGMA(GCC pop_options)
#endif
