// SPDX-License-Identifier: MIT
// The matrix of kinds of callers, with values of type void.
#include <gtest/gtest.h>

#include "async_matrix.hpp"

namespace {

class MatrixOfVoid : public testing::TestWithParam<std::size_t> {};

TEST_P(MatrixOfVoid, HoldsInEachCell) {
  const auto all = matrix::kinds<void>();
  int cells = 0;
  for (const auto becomes :
       {matrix::ending::value, matrix::ending::exception, matrix::ending::owner_dead}) {
    cells += matrix::run<void>({all.at(GetParam())}, all, becomes);
  }
  EXPECT_GT(cells, 0);
  RecordProperty("cells", cells);
}

INSTANTIATE_TEST_SUITE_P(Leader, MatrixOfVoid,
                         testing::Range<std::size_t>(0, matrix::kinds<void>().size()));

}  // namespace
