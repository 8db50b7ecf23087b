// Which kernel an op took, for tests and `fastseg.trace()`.
#pragma once
#include <string>

namespace fastseg {

void trace_start();
std::string trace_stop();
// Records `op:<path_name()>` while tracing, and `:<algorithm>` behind it where an op has several.
void took(const char* op, const char* algorithm = nullptr);
std::string path_name();  // of this library: cpu/<isa>, cuda, ...

}  // namespace fastseg
