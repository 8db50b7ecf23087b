// The instruction set of the CPU kernels: the best that the machine and the build have, or the one asked for.
#pragma once

namespace fastseg {

enum class Isa { base, avx2, avx512 };

Isa isa();
const char* isa_name();

}  // namespace fastseg

// Members of a kernel's parameters: a weak function of one instruction set could be linked for everybody.
#define FASTSEG_INLINE inline __attribute__((always_inline))

// The table that was compiled for the instruction set in use. A stem declares its tables with FASTSEG_TABLES.
#if defined(__x86_64__)
#define FASTSEG_TABLES(type, name) extern "C" const type name##_base, name##_avx2, name##_avx512
#define FASTSEG_PICK(name)                                    \
  (::fastseg::isa() == ::fastseg::Isa::avx512 ? name##_avx512 \
   : ::fastseg::isa() == ::fastseg::Isa::avx2 ? name##_avx2   \
                                              : name##_base)
#else
#define FASTSEG_TABLES(type, name) extern "C" const type name##_base
#define FASTSEG_PICK(name) (name##_base)
#endif
