// Which side of a kernel its sums of rows divide; both with a root.
#pragma once
#include <string>

#include "../common/checks.h"

namespace fastseg {

struct Normalization {
  bool before, after;

  Normalization(const char* op, const std::string& name)
      : before(name == "before" || name == "symmetric"), after(name == "after" || name == "symmetric") {
    FASTSEG_CHECK(any() || name == "none", op, "normalization", "be none, before, after or symmetric, got ", name);
  }

  bool any() const { return before || after; }
};

}  // namespace fastseg
