"""The order of pixels in tiles, compiled by itself: every pixel has a place, also where 32 bits would not hold it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
#include "dense_crf/order.h"
#include <cstdio>
using fastseg::Order;
using fastseg::Run;

bool fits(Order order, int64_t chunk) {
  std::vector<Run> runs;
  std::vector<int64_t> first;
  order.list(chunk, runs, first);
  std::vector<bool> seen(order.count());
  int64_t place = 0;
  for (size_t r = 0; r < runs.size(); ++r) {
    for (int64_t i = 0; i < runs[r].length; ++i, ++place) {
      const int64_t pixel = runs[r].pixel + i, x = pixel % order.width, row = pixel / order.width;
      if (seen[pixel] || row != runs[r].pixel / order.width) return false;
      seen[pixel] = true;
      if (order.place(row / order.height, row % order.height, x) != place) return false;
    }
  }
  for (size_t c = 0; c + 1 < first.size(); ++c) {
    int64_t length = 0;
    for (int64_t r = first[c]; r < first[c + 1]; ++r) length += runs[r].length;
    if (length != std::min(chunk, order.count() - int64_t(c) * chunk)) return false;
  }
  return place == order.count() && first.back() == int64_t(runs.size());
}

int main() {
  for (int64_t d : {1, 3})
    for (int64_t h : {1, 15, 16, 17, 50})
      for (int64_t w : {1, 31, 32, 33, 100})
        for (int64_t chunk : {7, 512})
          if (!fits({d, h, w}, chunk)) return 1;
  const Order large{1, 30000, 30000}, deep{7, 30000, 30000};
  if (large.place(0, 29999, 29999) != 899999999 || deep.place(6, 29999, 29999) != 6299999999) return 2;
  if (deep.place(6, 0, 0) != 5400000000 || deep.place(6, 16, 0) != 5400480000) return 3;
  puts("fits");
}
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
def test_every_pixel_has_a_place(tmp_path: Path) -> None:
    source, program = tmp_path / "order.cpp", tmp_path / "order"
    source.write_text(PROGRAM)
    flags = ["-std=c++20", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all", f"-I{ROOT / 'csrc'}"]
    subprocess.run(["c++", *flags, str(source), "-o", str(program)], check=True)
    assert subprocess.run([program], check=True, capture_output=True, text=True).stdout == "fits\n"
