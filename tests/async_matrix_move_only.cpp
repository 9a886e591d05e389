// SPDX-License-Identifier: MIT
// The matrix of kinds of callers, with values of type std::unique_ptr<int>.
#include <gtest/gtest.h>

#include "async_matrix.hpp"

namespace {

class MatrixOfMoveOnlyValues : public testing::TestWithParam<std::size_t> {};

TEST_P(MatrixOfMoveOnlyValues, HoldsInEachCell) {
  const auto all = matrix::kinds<std::unique_ptr<int>>();
  int cells = 0;
  for (const auto becomes :
       {matrix::ending::value, matrix::ending::exception, matrix::ending::owner_dead}) {
    cells += matrix::run<std::unique_ptr<int>>({all.at(GetParam())}, all, becomes);
  }
  EXPECT_GT(cells, 0);
  RecordProperty("cells", cells);
}

INSTANTIATE_TEST_SUITE_P(Leader, MatrixOfMoveOnlyValues,
                         testing::Range<std::size_t>(0,
                                                     matrix::kinds<std::unique_ptr<int>>().size()));

}  // namespace
