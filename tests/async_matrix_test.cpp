// SPDX-License-Identifier: MIT
// The matrix of kinds of callers, with values of type int.
#include "async_matrix.hpp"

#include <gtest/gtest.h>

namespace {

class MatrixOfValues : public testing::TestWithParam<std::size_t> {};

TEST_P(MatrixOfValues, HoldsInEachCell) {
  const auto all = matrix::kinds<int>();
  int cells = 0;
  for (const auto becomes :
       {matrix::ending::value, matrix::ending::exception, matrix::ending::owner_dead}) {
    cells += matrix::run<int>({all.at(GetParam())}, all, becomes);
  }
  EXPECT_GT(cells, 0);
  RecordProperty("cells", cells);
}

INSTANTIATE_TEST_SUITE_P(Leader, MatrixOfValues,
                         testing::Range<std::size_t>(0, matrix::kinds<int>().size()));

}  // namespace
