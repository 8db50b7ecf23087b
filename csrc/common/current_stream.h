// torch's function for the current CUDA stream, looked up when it is needed: torch's CPU build lacks it, and the
// library has to load there too. Python loads torch's libraries for itself alone, so the one that has it is asked by
// name.
#pragma once
#include <dlfcn.h>
#include <stdint.h>

namespace fastseg {

using CurrentStream = int32_t (*)(int32_t device, void** stream);

inline CurrentStream find_current_stream() {
  constexpr const char* name = "aoti_torch_get_current_cuda_stream";
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  void* found = library ? dlsym(library, name) : nullptr;
  return (CurrentStream)(found ? found : dlsym(RTLD_DEFAULT, name));
}

}  // namespace fastseg
