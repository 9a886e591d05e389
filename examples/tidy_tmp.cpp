#include <singleflight/coroutine.hpp>
int main() {}
