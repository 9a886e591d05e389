// SPDX-License-Identifier: MIT
// The protocol of include/singleflight/fleet.hpp and redis_leases.hpp in Promela, for SPIN. What has
// the same name is the same thing. Those names are listed here, and `run --check` looks for each of
// them in the headers.
//
// Names of the headers:
//   enter, fill, release, wait, invalidate, lead, run_alone, lease, value, leader, kept, failed,
//   attempts, hit, refused, unreachable, pending, failures, bad_waits
//
// A step (an `atomic` or `d_step`) is one script or command, which Redis executes by itself, or the
// begin or end of a loader. There is one key. Each process makes ROUNDS loads, one after the other; a
// load is named by a number, which is also its token. What happens in between is chosen freely, as
// often as EVENTS says: a loader throws, a process dies, a reply is lost, the store refuses, a lease,
// a value or all results are lost, somebody invalidates or writes, the store is full from now on, a
// caller has waited long enough. A lease runs out when nothing else can happen; at any other moment,
// as one of the events.
//
// Sizes and features are macros; tests/model/run defines them. With KEEPS_NOTHING, results are only
// handed over. Each MUTANT_... breaks one rule, which one of the properties below must notice.

#define ALL (PROCESSES * ROUNDS)
#define nobody 15
#define of_others 14  // a value that another program has written

#ifdef KEEPS_NOTHING
#define to_be_kept false
#else
#define to_be_kept true
#endif

// The properties. Hidden variables are no part of the state; SPIN prints the name of the one that is
// violated. That every caller returns is what SPIN's search for invalid end states adds.
#define must(property, condition) \
  property = (condition);         \
  assert(property)
hidden byte one_load;                    // but for those that an event excuses
hidden byte leads_only_without_a_value;
hidden byte stores_nothing_old;          // nothing that was begun before an invalidation
hidden byte replaces_no_value;
hidden byte gets_nothing_old;            // nothing begun before an invalidation before the entry
hidden byte joins_no_published_load;     // gets no result directly that was published before the entry
hidden byte releases_only_its_own;
hidden byte waits_only_for_the_living;   // nobody waits for the lease of a load that has ended
hidden byte nothing_is_left;             // no lease, when all have returned

// What the store has.
byte value = nobody;  // the load that it is of
byte lease = nobody;  // the load that has it
mtype = {none, kept, handed_over, failed};
mtype result[ALL] = none;  // the streams, by token
byte written_by[ALL];      // whose result it is
bool is_full;

// What has happened. A load knows how many invalidations there were when it entered and when its
// loader began, and which loads were published when it entered.
byte events = EVENTS;
byte excuses;
byte loading;
byte invalidations;
byte entered[ALL], begun[ALL], published_before[ALL];
byte published;
bool gone[PROCESSES];     // it died, or could not give its lease back
bool slice_over[PROCESSES];
byte ended;

mtype = {hit, lead, held_by_another, refused, unreachable, pending};

#ifdef MUTANT_RESULT_NAMED_BY_KEY
#define stream(l) result[0]
#define writer(l) written_by[0]
#else
#define stream(l) result[l]
#define writer(l) written_by[l]
#endif

// An event that may cost a load beside another.
#define excused_event events > 0 -> events--; excuses++
#define event events > 0 -> events--

inline look_in() {
  if
  :: first -> entered[l] = invalidations; published_before[l] = published; first = false
  :: else
  fi
}

inline enter() {
  atomic {
    look_in();
    if
    :: value != nobody -> answer = hit; got = value
#ifndef MUTANT_TAKES_A_HELD_LEASE
    :: value == nobody && lease != nobody -> answer = held_by_another; leader = lease
    :: value == nobody && lease == nobody && is_full -> answer = refused
    :: value == nobody && lease == nobody && !is_full -> answer = lead; lease = l
#else
    :: value == nobody -> answer = lead; lease = l
#endif
#ifdef MUTANT_IGNORES_THE_VALUE
    :: value != nobody && lease == nobody -> answer = lead; lease = l
#endif
    :: excused_event; answer = refused
    fi;
    if
    :: answer == lead -> must(leads_only_without_a_value, value == nobody)
    :: else
    fi;
    if
    :: skip
    :: answer != refused && events > 0 -> events--; excuses++; answer = unreachable; gone[me] = true
    fi
  }
}

inline publish(how) {
  stream(l) = how;
  writer(l) = l;
  published = published | (1 << l)
}

inline fill() {
  atomic {
    if
    :: excused_event; gone[me] = true  // refused, or the request is lost
    :: true ->
      mine = (lease == l);
#ifdef MUTANT_FILLS_WITHOUT_COMPARING
      mine = (lease != nobody);
#endif
#ifdef MUTANT_FILLS_WITHOUT_A_LEASE
      mine = (lease == l || lease == nobody);
#endif
      if
      // A script that has deleted something may write although the store is full.
#ifdef MUTANT_DELETES_AFTER_SETTING
      :: is_full
#else
      :: is_full && !mine
#endif
      :: else ->
#ifndef MUTANT_FILL_KEEPS_THE_LEASE
        if
        :: mine -> lease = nobody
        :: else
        fi;
#endif
        if
#ifdef MUTANT_REPLACES_A_VALUE
        :: mine && to_be_kept ->
#else
        :: mine && to_be_kept && value == nobody ->
#endif
          must(stores_nothing_old, begun[l] == invalidations);
          must(replaces_no_value, value == nobody);
          value = l;
          publish(kept)
        :: else -> publish(handed_over)
        fi
      fi
    fi
  }
}

inline release() {
  atomic {
    if
    :: excused_event; gone[me] = true
    :: true ->
#ifndef MUTANT_NEVER_RELEASES
      if
#ifdef MUTANT_RELEASES_WITHOUT_COMPARING
      :: true ->
#else
      :: lease == l ->
#endif
        must(releases_only_its_own, lease == l || lease == nobody);
        lease = nobody;
        stream(l) = failed
      :: else
      fi;
#endif
      skip
    fi
  }
}

// Comes back with the leader's news, or when its lease has changed, as after the slice.
inline wait() {
  atomic {
#ifdef MUTANT_WAITS_FOR_NEWS_ONLY
    stream(leader) != none;
#else
    stream(leader) != none || lease != leader || slice_over[me];
#endif
    slice_over[me] = false;
    if
    :: stream(leader) == none -> answer = pending
    :: stream(leader) == kept -> answer = kept
    :: stream(leader) == failed -> answer = failed
    :: stream(leader) == handed_over -> answer = handed_over; got = writer(leader);
      must(joins_no_published_load, !(published_before[l] & (1 << got)))
    :: excused_event; answer = unreachable
    fi
  }
}

inline load(how) {
  atomic {
    loading++;
    begun[l] = invalidations;
    must(one_load, loading <= 1 + excuses || is_full)
  }
  atomic {
    loading--;
    got = l;
    if
    :: how = true
    :: event -> excuses++; how = false
    fi
  }
}

inline die() {
  if
  :: event -> gone[me] = true; goto done
  :: skip
  fi
}

inline give_back() {
  if
  :: got < ALL -> must(gets_nothing_old, got == l || begun[got] >= entered[l])
  :: else
  fi
}

proctype process(byte me) {
  byte round, l, got, leader, failures, bad_waits;
  bool first, mine, succeeded;
  mtype answer;
  round = 0;
  do
  :: round == ROUNDS -> break
  :: round < ROUNDS ->
    atomic {
      l = me * ROUNDS + round;
      first = true; failures = 0; bad_waits = 0; got = nobody; leader = nobody;
      die()
    }
again:
    enter();
    if
    :: answer == hit -> goto returns
    :: answer == refused -> goto run_alone
    :: answer == lead || answer == unreachable ->
      atomic { die() }
      load(succeeded);
      atomic { die() }
      if
      :: succeeded -> fill(); goto returns
      :: else -> release(); goto returns_nothing
      fi
    :: answer == held_by_another
    fi;
    if
    :: wait()
    :: atomic { excused_event; goto run_alone }  // max_wait
    fi;
    if
    :: answer == handed_over -> goto returns
    :: answer == failed ->
      failures++;
      if
      :: failures == 2 -> goto run_alone  // attempts
      :: else -> goto again
      fi
    :: answer == unreachable ->
      bad_waits++;
      if
      :: bad_waits == 2 -> goto run_alone
      :: else -> goto again
      fi
    :: answer == pending || answer == kept -> goto again
    fi;
run_alone:
    atomic { excuses = excuses + (failures == 2); die() }
    load(succeeded);
    if
    :: succeeded -> goto returns
    :: else -> goto returns_nothing
    fi;
returns:
    atomic { give_back() }
returns_nothing:
    round++
  od;
done:
  ended++
}

init {
  byte p;
  atomic {
    p = 0;
    do
    :: p < PROCESSES -> run process(p); p++
    :: p == PROCESSES -> break
    od
  }
  do
  :: d_step { ended == PROCESSES ->
      must(nothing_is_left, lease == nobody || lease < ALL && gone[lease / ROUNDS]) }
    break
  :: d_step { events > 0 && lease != nobody -> events--; excuses++; lease = nobody }
  :: d_step { events > 0 && value != nobody -> events--; value = nobody }
  :: atomic { events > 0 -> events--;
      p = 0;
      do
      :: p < ALL -> result[p] = none; p++
      :: p == ALL -> break
      od }
  // invalidate
  :: d_step { events > 0 -> events--; excuses++; invalidations++; value = nobody;
#ifndef MUTANT_INVALIDATES_THE_VALUE_ONLY
      lease = nobody
#endif
    }
  :: d_step { events > 0 && value == nobody -> events--; value = of_others }
  :: d_step { events > 0 && !is_full -> events--; is_full = true }
  :: atomic { timeout && lease != nobody ->  // it runs out
      must(waits_only_for_the_living, gone[lease / ROUNDS]);
      lease = nobody;
      p = 0;
      do
      :: p < PROCESSES -> slice_over[p] = true; p++
      :: p == PROCESSES -> break
      od }
  od
}
