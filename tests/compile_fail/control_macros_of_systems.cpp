// SPDX-License-Identifier: MIT
// The headers must compile after those of systems and libraries that define such macros.
#if __has_include(<bits/stdc++.h>)
#include <bits/stdc++.h>  // libstdc++ itself would not compile after them
#include <dlfcn.h>
#include <unwind.h>

// <windows.h>
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define small char
#define near
#define far
#define interface struct
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define VOID void
#define ERROR 0
#define NO_ERROR 0
#define DELETE 0x10000L
#define IGNORE 0
#define STRICT 1
#define TEXT(x) L##x
#define Yield()
#define GetObject GetObjectA
#define SendMessage SendMessageA

// macOS and Objective-C
#define check(x) (void)(x)
#define verify(x) (void)(x)
#define require(a, b) (void)(a)
#define nil 0
#define YES 1
#define NO 0

// X11
#define None 0L
#define Bool int
#define Status int
#define Success 0
#define Always 2
#define Above 0
#define Below 1
#define CursorShape 0
#define DestroyAll 0

// Qt
#define emit
#define signals public
#define slots
#define foreach(a, b) for (;;)
#define forever for (;;)

// Others
#define major(x) x
#define minor(x) x
#define likely(x) x
#define unlikely(x) x
#define assume(x)
#define abs(x) ((x) > 0 ? (x) : -(x))
#define round(x) x
#define bit(b) (1UL << (b))
#define index strchr
#define CHECK(x) (void)(x)
#define LOG(x) x
#define DEBUG 1
#define INFO 1
#define WARNING 2
#define FATAL 3
#define TIMEOUT 5
#define PI 3.14
#endif

#include <singleflight/coroutine.hpp>
#include <singleflight/fleet.hpp>
#include <singleflight/group.hpp>
#include <singleflight/observer.hpp>
#include <singleflight/prometheus.hpp>
#include <singleflight/read_through.hpp>
#include <singleflight/redis_leases.hpp>

// Templates, too.
struct no_cache {
  std::optional<singleflight::cache_entry<int>> find(int) { return std::nullopt; }
  void put(int, const singleflight::cache_entry<int>&) {}
  void erase(int) {}
};

void use(singleflight::group<int, int>& flights,
         singleflight::read_through<int, int, no_cache>& rows) {
  (void)flights.do_call(1, [] { return 1; });
  (void)flights.do_many(std::vector<int>{1},
                        [](singleflight::batch<int, int>& missing) { missing.set(1, 1); });
  flights.async_call(
      1, singleflight::resume_inline, {},
      [](singleflight::leader<int> l) { std::move(l).set_value(1); },
      [](singleflight::outcome<int>) {});
  (void)rows.get(1, [] { return 1; });
}
