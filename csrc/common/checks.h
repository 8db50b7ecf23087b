// Errors read `fastseg::<op>: <argument> must <rule>, got <value>`.
#pragma once
#include <sstream>
#include <stdexcept>

namespace fastseg {

template <class... Parts>
[[noreturn]] void fail(const char* op, const char* argument, const Parts&... parts) {
  std::ostringstream message;
  message << "fastseg::" << op << ": " << argument << " must ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

}  // namespace fastseg

#define FASTSEG_CHECK(condition, op, argument, ...) \
  if (!(condition)) ::fastseg::fail(op, argument, __VA_ARGS__)
