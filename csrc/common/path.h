// Which kernel an op took, for tests and `fastseg.trace()`.
#pragma once
#include <string>

namespace fastseg {

void trace_start();
std::string trace_stop();
void took(const char* op);  // records `op:<path_name()>` while tracing
std::string path_name();    // of this library: cpu/<isa>, cuda, ...

}  // namespace fastseg
