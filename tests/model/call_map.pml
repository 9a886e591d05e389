// SPDX-License-Identifier: MIT
// The protocol of include/singleflight in Promela, for SPIN. Read it beside group.hpp and, in detail,
// call_map.hpp, lead.hpp, follow.hpp and wait_graph.hpp: what has the same name is the same thing.
// Those names are listed here, and `run --check` looks for each of them in the headers; a comment may
// use others of the headers, too.
//
// Names of the headers:
//   call, shared_state, call_handle, key, listed, interested, ended, handed_out, future, leader,
//   watched, waiters, published_, running, withdrawal, on_stop, is_nested, wait_stoppably,
//   find, list, begin, supersede, request_stop, make_ticket, add_follower, remove_interest, end,
//   leads_to, connect, waits_for_this_thread, enter, lead, announce, block, block_until, wait, join,
//   take_leave, forget, max_age, max_waiters
//
// A step (an `atomic` or `d_step`) is one critical section of the headers, or one publication. What
// the headers guard by a mutex they touch under it alone, so nothing can come in between. A delay
// between two steps is the process standing still between them.
//
// There are two keys. What is chosen freely, as late as possible: keys, options, whether a loader
// throws, when time runs out, who is told to stop, how many calls a thread makes. Left out: executors
// and the group's destructor, max_waiters, counters, failing allocations, hashing and growing.
//
// Sizes and features are macros; tests/model/run defines them. Without the feature's macro:
//   DEADLINES  no follower can run out of time
//   STOPS      this many leaders can be told to stop (0), and no follower has a stop token
//   AGES       the group has no max_age
//   NESTED     no loader enters the group
//   ATTEMPTS   no follower tries again when its call has failed
//   FORGETS    this many calls of forget (0)
//   HANGS      this many loaders never return (0)
// Each MUTANT_... breaks one rule, which one of the properties below must notice.

#ifndef STOPS
#define STOPS 0
#endif
#ifndef FORGETS
#define FORGETS 0
#endif
#ifndef HANGS
#define HANGS 0
#endif

#define ALL (THREADS * CALLS)
#define none 15

// The properties. Hidden variables are no part of the state; SPIN prints the name of the one that is
// violated. That every caller returns is what SPIN's search for invalid end states adds.
#define must(property, condition) \
  property = (condition);         \
  assert(property)
hidden byte one_listed_per_key;         // contract 1
hidden byte joins_no_ended_call;        // 2
hidden byte never_stale;                // 2: nobody joins a call that somebody has returned from
hidden byte answered_by_its_own_call;   // 3
hidden byte joins_no_dying_call;        // 5: one that nobody is interested in any more
hidden byte stopped_once;               // 5
hidden byte stopped_only_unwanted;      // 5
hidden byte unlists_only_itself;        // 6
hidden byte joins_no_dismissed_call;    // 6, 9: forgotten, superseded
hidden byte closes_no_circle;           // 8: nobody waits, with a deadline or without, for itself
hidden byte refused_only_in_a_circle;   // 8
hidden byte awake_without_an_edge;      // 8: what a thread does next may be user code
hidden byte not_superseded_by_itself;   // 9: no loader begins a call anew that waits for it
hidden byte touches_no_gone_call;       // a call lives in its leader's frame
hidden byte touches_no_ended_books;     // from its end on, a call is its leader's alone
hidden byte nothing_is_left;            // when all have returned

// detail::call, with its shared_state and its call_handle. The index says who leads it and which of
// the leader's entries it is; no index is used twice, so no frame is mistaken for a later one.
typedef call {
  bit key;
  bool alive;     // its frame is there
  bool listed;
  unsigned interested : 3;
  bool ended;     // and so is handle->running null
  bool failed;    // the loader threw
  bool handed_out;          // somebody waits, or has waited
  unsigned future : 4;      // whose result is in it, plus 1; 0: not ready
  unsigned holders : 3;     // of the future
  bool leader;    // handle->node.leader is set
  bool waiters;   // handle->waiters is there
  bool published; // handle->waiters->published_
  bool withdrawn; // its leader was told to stop
  bool dismissed; // forgotten or superseded
  bool returned;  // somebody has returned with its result
  bool stopped    // its loader was told to stop
};
call calls[ALL];

byte edge[THREADS] = none;       // the wait graph: the call that this thread waits for
byte waiter[THREADS] = none;     // thread_waiter: the call in whose list this thread's waiter is
bool notified[THREADS];          // its condition variable
byte withdrawing = none;         // the call whose leader's stop callback runs
byte begun;                      // threads that have made their first step
byte hung;                       // loaders that never return
byte returned_threads;           // threads whose callers have all returned

hidden byte i, found, at;
hidden byte circle, waits_for_me;

// How a follower waits. One with a stop token that nobody uses must be woken by the call's end.
#define to_the_end 0
#define until_deadline 1
#define until_stop 2
#define with_a_token 3

#define leader_of(c) ((c) / CALLS)

// --- detail/call_map.hpp -------------------------------------------------------------------------

inline find(wanted) {
  found = none;
  i = 0;
  do
  :: i < ALL && calls[i].listed && calls[i].key == wanted -> found = i; break
  :: i < ALL && !(calls[i].listed && calls[i].key == wanted) -> i++
  :: i == ALL -> break
  od
}

inline list(c) {
  find(calls[c].key);
  must(one_listed_per_key, found == none);
  calls[c].listed = true
}

inline begin(c, k) {
  calls[c].alive = true;
  calls[c].key = k;
  calls[c].interested = 1;
  list(c)
}

inline supersede(c) {
#ifndef MUTANT_SUPERSEDE_KEEPS_LISTED
  calls[c].listed = false;
#endif
  calls[c].dismissed = true
}

inline request_stop(c) {
  must(stopped_once, !calls[c].stopped);
  must(stopped_only_unwanted, calls[c].interested == 0);
  calls[c].stopped = true
}

inline remove_interest(c, unwanted) {
  must(touches_no_gone_call, calls[c].alive);
  must(touches_no_ended_books, !calls[c].ended);
  calls[c].interested--;
#ifdef MUTANT_STOPPED_WITHOUT_FOLLOWERS
  unwanted = (calls[c].interested <= 1);
#else
  unwanted = (calls[c].interested == 0);
#endif
#ifndef MUTANT_DYING_CALL_STAYS_LISTED
  if
  :: unwanted -> calls[c].listed = false
  :: else
  fi
#endif
}

// Unlists the call if it is listed. By identity.
inline end(c) {
#ifdef MUTANT_UNLISTS_BY_KEY
  find(calls[c].key);
  if
  :: found != none -> must(unlists_only_itself, found == c); calls[found].listed = false
  :: else
  fi;
#elif defined(MUTANT_ENDED_CALL_STAYS_LISTED)
#else
  if
  :: calls[c].listed ->
     find(calls[c].key);
     must(unlists_only_itself, found == c);
     calls[found].listed = false
  :: else
  fi;
#endif
  calls[c].ended = true
}

#ifdef MUTANT_HANDLE_OUTLIVES_END
#define running_by_handle(c) true
#else
#define running_by_handle(c) (!calls[c].ended)
#endif

inline make_ticket(c, an_edge, to_be_woken) {
  if
  :: to_be_woken -> calls[c].waiters = true
  :: else
  fi;
  if
  :: an_edge -> calls[c].leader = true  // watched
  :: else
  fi
}

inline add_follower(c) {
  calls[c].handed_out = true;
  calls[c].interested++;
  calls[c].holders++
}

// What nobody can look at any more is forgotten, so that it tells no two states apart.
inline release(c) {
  if
  :: !calls[c].alive && calls[c].holders == 0 && !calls[c].listed ->
     calls[c].key = 0;
     calls[c].interested = 0;
     calls[c].ended = false;
     calls[c].failed = false;
     calls[c].handed_out = false;
     calls[c].future = 0;
     calls[c].leader = false;
     calls[c].waiters = false;
     calls[c].published = false;
     calls[c].withdrawn = false;
     calls[c].dismissed = false;
     calls[c].returned = false;
     calls[c].stopped = false
  :: else
  fi
}

// --- detail/wait_graph.hpp -----------------------------------------------------------------------

// Says in `circle` whether the thread in `at` is `me` or waits for it, and checks the search: each wait
// on the way is for a call that has no result yet.
inline leads_to(me) {
  circle = false;
  refused_only_in_a_circle = true;
  do
  :: at == none -> break
  :: at == me -> circle = true; break
  :: at != none && at != me ->
     if
     :: edge[at] == none -> at = none
     :: edge[at] != none ->
        if
        :: calls[edge[at]].future != 0 -> refused_only_in_a_circle = false
        :: else
        fi;
        at = (calls[edge[at]].leader -> leader_of(edge[at]) : none)
     fi
  od;
  refused_only_in_a_circle = !circle || refused_only_in_a_circle
}

// Adds an edge from `me` to the call unless it would close a circle.
inline connect(c, me) {
  at = (calls[c].leader -> leader_of(c) : none);
  leads_to(me);
  refused = circle;
#ifdef MUTANT_NO_SEARCH_FOR_CIRCLES
  refused = false;
#endif
#ifdef MUTANT_DEADLINES_MAY_CLOSE_CIRCLES
  refused = circle && how != until_deadline;
#endif
  must(closes_no_circle, refused || !circle);
  must(refused_only_in_a_circle, !refused || refused_only_in_a_circle);
  if
  :: !refused -> edge[me] = c
  :: else
  fi
}

// --- group.hpp: a thread and its callers ---------------------------------------------------------

#define is_nested (outer != none)

inline choose_key() {
  if
  :: key = 0
  :: begun > 1 || n > 0 -> key = 1  // which key is the first does not matter
  fi
}

inline choose_options() {
  if
  :: how = to_the_end
#ifdef DEADLINES
  :: how = until_deadline
#endif
#if STOPS > 0
  :: how = until_stop
  :: how = with_a_token
#endif
  fi
}

inline join(c) {
  d_step {
    must(joins_no_ended_call, !calls[c].ended);
    must(never_stale, !calls[c].returned);
    must(joins_no_dying_call, calls[c].interested > 0);
    must(joins_no_dismissed_call, !calls[c].dismissed);
    must(touches_no_gone_call, calls[c].alive);
    refused = (leader_of(c) == _pid);
    if
    :: refused
    :: else ->
       make_ticket(c, is_nested, how >= until_stop);
       if
       :: is_nested -> connect(c, _pid)
       :: else
       fi
    fi;
    if
    :: !refused -> add_follower(c)
    :: else
    fi
  }
}

active [THREADS] proctype caller() {
  byte n;               // entries so far
  bit key;
  byte own = none;      // the call that it leads
  byte outer = none;    // the call in whose loader it has entered again
  byte running = none;  // the call that it follows
  unsigned how : 2;
  bool ages;            // it may leave for a newer call
  bool newer;           // it leaves for one
  bool refused, unwanted, failures;

idle:
  atomic {
    n > 0 || begun == _pid;  // threads are alike: they begin in this order
    if
    :: n == 0 -> begun++
    :: else
    fi;
    if
    :: n < CALLS -> choose_key(); n++
    :: n < CALLS -> n = CALLS; goto done  // it may make fewer calls
    :: n == CALLS -> goto done
    fi;
    goto enter_locked
  }

// enter(): joins the call that is listed, or begins one.
enter:
  atomic {
    true;
enter_locked:
    true;
    d_step { find(key); running = found };
#ifdef AGES
    d_step {  // waits_for_this_thread()
      at = (running == none -> none : leader_of(running));
      leads_to(_pid);
#if defined(MUTANT_LOADER_BEGINS_ITSELF_ANEW)
      waits_for_me = circle && leader_of(running) != _pid;
#elif defined(MUTANT_BEGINS_ANEW_WHAT_WAITS_FOR_IT)
      waits_for_me = circle && leader_of(running) == _pid;
#else
      waits_for_me = circle;
#endif
    };
    if
    :: running != none && !waits_for_me ->
       d_step {  // it is too old
         must(not_superseded_by_itself, !circle);
         supersede(running);
         running = none
       }
    :: true
    fi;
#endif
    if
    :: running != none ->
       choose_options();
       join(running);
       if
       :: refused -> refused = false; running = none; how = to_the_end; goto leave_entry
       :: else
       fi;
#ifdef AGES
       ages = true;
#endif
       if
       :: how >= until_stop -> goto wait_stoppably
       :: else -> goto future_wait
       fi
    :: else
    fi;
#ifdef MUTANT_LISTS_WITHOUT_LOOKING
  };
  atomic {
#endif
    own = _pid * CALLS + n - 1;
    d_step { begin(own, key); key = 0; failures = 0 }
  }

// lead(): run the loader, end the call under the lock, publish outside it.
loader:
  atomic {
    if
#ifdef NESTED
    :: outer == none && n < CALLS ->
       outer = own;
       own = none;
       choose_key();
       n++;
       goto enter_locked
#endif
#if HANGS > 0
    :: hung < HANGS -> hung++; goto end_hung
#endif
    :: calls[own].failed = false
    :: calls[own].failed = true
    fi;
#ifdef MUTANT_PUBLISHES_FIRST
    calls[own].future = own + 1
  };
#elif defined(MUTANT_LOOKS_FOR_FOLLOWERS_BEFORE_THE_END)
    refused = calls[own].handed_out
  };
#endif
#if defined(MUTANT_PUBLISHES_FIRST) || defined(MUTANT_LOOKS_FOR_FOLLOWERS_BEFORE_THE_END)
  atomic {
#endif
    d_step { end(own) };
#ifdef MUTANT_LOOKS_FOR_FOLLOWERS_BEFORE_THE_END
    if
    :: !refused -> goto return_own
    :: else -> refused = false
    fi;
#endif
    if
    :: !calls[own].handed_out -> goto return_own
#ifdef MUTANT_FAILURE_IS_NOT_PUBLISHED
    :: calls[own].handed_out && calls[own].failed -> goto return_own
#endif
    :: else
    fi
  };
  atomic {
#ifdef MUTANT_PUBLISHES_BY_KEY
    d_step {
      find(calls[own].key);
      at = (found == none -> own : found);
      calls[at].future = own + 1
    };
#else
    calls[own].future = own + 1;
#endif
    if
    :: calls[own].leader
    :: !calls[own].leader && calls[own].waiters -> goto announce_to_waiters
    :: !calls[own].leader && !calls[own].waiters -> goto return_own
    fi
  };
  atomic {  // announce(): to the wait graph
#ifndef MUTANT_EDGES_ARE_NOT_VOIDED
    calls[own].leader = false;
#endif
    if
    :: calls[own].waiters
    :: !calls[own].waiters -> goto return_own
    fi
  };
announce_to_waiters:
  atomic {
    d_step {
      calls[own].published = true;
      i = 0;
      do
      :: i < THREADS && waiter[i] == own -> notified[i] = true; i++
      :: i < THREADS && waiter[i] != own -> i++
      :: i == THREADS -> break
      od
    };
return_own:
#ifndef MUTANT_RETURNS_DURING_WITHDRAWAL
    withdrawing != own;  // the end of on_stop waits for the callback
#else
    true;
#endif
    d_step {
      calls[own].returned = true;
      calls[own].alive = false;
      release(own);
      own = none
    };
    goto leave_entry
  }

// waiter::block_until(): waits in the future.
future_wait:
  atomic {
    if
    :: calls[running].future != 0 -> goto answered
    :: how == until_deadline -> goto awake
#ifndef MUTANT_FOLLOWERS_IGNORE_MAX_AGE
    :: ages -> newer = true; goto awake
#endif
    fi
  }

// wait_stoppably(): the thread_waiter is in the list before it looks whether it has to sleep.
wait_stoppably:
#ifndef MUTANT_LOOKS_BEFORE_IT_IS_IN_THE_LIST
  waiter[_pid] = running;
#endif
look:
  atomic {
    if
    :: calls[running].published -> goto answered
    :: how == until_stop -> goto awake
    :: !calls[running].published
    fi
  }
#ifdef MUTANT_LOOKS_BEFORE_IT_IS_IN_THE_LIST
  waiter[_pid] = running;
#endif
  atomic {
    if
    :: notified[_pid] -> notified[_pid] = false; goto look
    :: how == until_stop -> goto awake
#ifndef MUTANT_FOLLOWERS_IGNORE_MAX_AGE
    :: ages -> newer = true; goto awake
#endif
    fi
  }

// waiter::wait(): has its result.
  atomic {
    false;
answered:
    true;
    d_step {
      waiter[_pid] = none;
      notified[_pid] = false;
      edge[_pid] = none;
      must(answered_by_its_own_call, calls[running].future == running + 1);
      calls[running].returned = true;
      refused = calls[running].failed;
      calls[running].holders--;
      release(running);
      running = none;
      ages = false;
      how = to_the_end
    };
#ifdef ATTEMPTS
    if
    :: refused && !failures -> refused = false; failures = true; goto enter
    :: else
    fi;
#endif
    refused = false;
    goto leave_entry
  }

// waiter::block(): does not wait any longer, and leaves the wait graph before anything else.
  atomic {
    false;
awake:
    true;
    d_step {
      waiter[_pid] = none;
      notified[_pid] = false
    };
    if
    :: edge[_pid] == none -> goto take_leave
#ifndef MUTANT_KEEPS_ITS_EDGE
    :: edge[_pid] != none -> edge[_pid] = none
#else
    :: edge[_pid] != none
#endif
    fi
  };
  atomic {
    true;
take_leave:
    true;
    must(awake_without_an_edge, edge[_pid] == none);
    if
    :: d_step {
         running_by_handle(running) ->
         if
         :: newer && calls[running].listed -> supersede(running)
         :: else
         fi;
         remove_interest(running, unwanted)
       }
    :: else ->
       if
       :: newer ->  // it stays for the result
          newer = false;
          ages = false;
          if
          :: is_nested -> d_step { connect(running, _pid) }
          :: else
          fi;
          if
          :: refused -> refused = false; goto gone
          :: !refused && how >= until_stop -> goto wait_stoppably
          :: !refused && how < until_stop -> goto future_wait
          fi
       :: else
       fi
    fi;
    if
    :: !unwanted -> goto gone
    :: else
    fi
  };
#ifdef MUTANT_DECIDES_TO_STOP_LATER
  d_step { unwanted = (calls[running].interested == 0) };
#endif
  atomic {
    if
    :: unwanted -> d_step { request_stop(running); unwanted = false }
    :: else
    fi;
gone:
    true;
    d_step {
      calls[running].holders--;
      release(running);
      running = none;
      ages = false;
      how = to_the_end
    };
    if
    :: newer -> newer = false; goto enter
    :: else -> goto leave_entry
    fi
  }

  atomic {
    false;
leave_entry:
    key = 0;
    failures = false;
    if
    :: outer != none -> own = outer; outer = none; goto loader
    :: else -> goto idle
    fi
  }

#if HANGS > 0
end_hung:
  false;
#endif

done:
  atomic {
    n = CALLS;
    returned_threads++;
    if
    :: returned_threads == THREADS - hung ->
       d_step {
         i = 0;
         do
         :: i < ALL ->
            must(nothing_is_left, hung > 0 || !calls[i].listed && calls[i].holders == 0 && !calls[i].alive);
            i++
         :: else -> break
         od
       }
    :: else
    fi
  }
}

#if STOPS > 0
// Tells leaders to stop: detail::withdrawal.
active proctype stopper() {
  byte stops, c;
  bool unwanted;
  do
  :: atomic {
       stops < STOPS ->
       stops++;
       c = 0;
       do
       :: c < ALL && calls[c].alive && !calls[c].withdrawn -> break
       :: c < ALL -> c++
       :: c == ALL -> goto done
       od;
       calls[c].withdrawn = true;
       withdrawing = c
     };
     d_step {
       must(touches_no_gone_call, calls[c].alive);
       if
#ifdef MUTANT_WITHDRAWAL_IGNORES_THE_END
       :: remove_interest(c, unwanted)
#else
       :: !calls[c].ended -> remove_interest(c, unwanted)
       :: else
#endif
       fi
     };
#ifdef MUTANT_DECIDES_TO_STOP_LATER
     d_step { unwanted = (calls[c].interested == 0) };
#endif
     if
     :: d_step { unwanted -> request_stop(c); unwanted = false }
     :: else
     fi;
     d_step { withdrawing = none; c = 0 }
  :: break
  od;
done:
  skip
}
#endif

#if FORGETS > 0
active proctype writer() {
  byte forgets;
  bit k;
  do
  :: forgets < FORGETS ->
     atomic {
       forgets++;
       if
       :: k = 0
       :: k = 1
       fi;
       d_step {
         find(k);
         if
         :: found != none ->
#ifndef MUTANT_FORGET_KEEPS_LISTED
            calls[found].listed = false;
#endif
            calls[found].dismissed = true
         :: else
         fi;
         k = 0
       }
     }
  :: break
  od
}
#endif
