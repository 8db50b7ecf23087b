// Which kernel an op took, for tests and `fastseg.trace()`.
#pragma once
#include <string>

namespace fastseg {

void trace_start();
std::string trace_stop();
void took(const char* op);  // records `op:cpu/<isa>` while tracing

}  // namespace fastseg
