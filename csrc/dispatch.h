// Run-time CPU dispatch: a function marked DITTO_MULTIVERSION is compiled for AVX-512, AVX2 and the baseline, and the
// loader picks. Elsewhere (macOS, MSVC, other processors) there is the one plain version.
#pragma once
#if defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#define DITTO_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DITTO_MULTIVERSION
#endif
