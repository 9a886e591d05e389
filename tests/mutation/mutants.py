# SPDX-License-Identifier: MIT
"""Finds what can be mutated in a header, and writes the header with all its mutants in it.

Each mutant becomes a branch that a number in the environment switches on, so that the tests are
compiled once for all mutants instead of once for each. The headers are formatted by clang-format,
which tells `a < b` from `f<a>` by the spaces; so no C++ front end is needed.
"""

import re

TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/|^[ ]*\#(?:[^\n]*\\\n)*[^\n]*)
      | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])')
      | (?P<number>\d[\w']*)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<op><<=|>>=|<=>|->\*|\.\.\.|::|->|\+\+|--|<=|>=|==|!=|&&|\|\||\+=|-=|\*=|<<|>>|\[\[|\]\]|.)
    """, re.X | re.S | re.M)

BINARY = {
    "<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"],
    "==": ["!="], "!=": ["=="], "&&": ["||"], "||": ["&&"],
    "+": ["-"], "-": ["+"], "*": ["+"], "<<": [">>"], ">>": ["<<"],
    "+=": ["-="], "-=": ["+="],
}
# What is there for standard libraries without <stop_token> and for other systems is not compiled here,
# and what is said to ThreadSanitizer changes nothing.
LEFT_OUT = re.compile(
    r"^#if defined\((?:__cpp_lib_jthread|SINGLEFLIGHT_DETAIL_HAS_\w+)\)$(?:(?!^#(?:if|endif)).)*?^(#else$(?:(?!^#endif).)*)^#endif"
    r"|^#if defined\(SINGLEFLIGHT_DETAIL_TSAN\)$((?:(?!^#endif).)*)", re.M | re.S)
# Names of which one can stand for another, each within its scope: a name, or several scopes of one name.
CIRCLES = {
    "errc": [["timed_out", "operation_canceled", "resource_deadlock_would_occur",
              "resource_unavailable_try_again", "owner_dead", "no_such_file_or_directory"]],
    "reason": [["deadline", "stop", "circle", "full", "newer_call", "caller_gone", "leader_exited",
                "task_dropped", "leader_gone", "nobody_waits", "no_value", "lost_in_fork"]],
    "group_stats": [["led", "joined", "failed", "timed_out", "cancelled", "rejected", "superseded",
                    "batches"]],
    "phase": [["starting", "given_up", "open", "claimed", "ended"],  # of an owned_call
              ["entering", "starting", "waiting", "stopped"]],  # of an async_wait
    "entered": [["waits", "begun", "ready"]],
    "kind": [["thread", "bound", "inlined"]],
    "group_options": [["reject", "run_alone"]],
    "time_point": [["max", "min"]],
    "std": [["min", "max"]],
}
WORDS = {"true": "false", "false": "true", "notify_all": "notify_one"}
SKIPPED = {"using", "typedef", "static_assert", "friend", "template", "SINGLEFLIGHT_ASSERT", "break",
           "continue", "public", "private", "protected", "constexpr", "constinit", "concept"}
BEFORE_A_BODY = {"]", ")", "noexcept", "mutable", "const", "SINGLEFLIGHT_NOT_ANALYSED"}  # of a lambda
OPEN, CLOSE = {"(": ")", "{": "}", "[": "]", "[[": "]]"}, {")", "}", "]", "]]"}


class Token:
    def __init__(self, kind, text, start):
        self.kind, self.text, self.start, self.end = kind, text, start, start + len(text)


class Mutant:
    """`place`: (start, end) of the function or member that it is in."""

    def __init__(self, header, line, label, place):
        self.header, self.line, self.label, self.place = header, line, label, place
        self.number = None
        self.key = f"{header} | {line} | {label}"


class Header:
    """One header: `mutants`, and `write(dropped)` with all of them but the dropped ones."""

    def __init__(self, name, text):
        self.name, self.text = name, text
        self.tokens = []
        self.regions = []  # (start, end, order, emit): emit(inner) is the text with its mutants
        self.mutants = []
        self.returns_bool = False
        self.place = None
        off = [m.span(m.lastindex) for m in LEFT_OUT.finditer(text)]
        for m in TOKEN.finditer(text):
            if m.lastgroup != "space" and not any(a <= m.start() < b for a, b in off):
                self.tokens.append(Token(m.lastgroup, m.group(), m.start()))
        self.tokens.append(Token("end", "", len(text)))
        self._scope(0, len(self.tokens) - 1)
        seen = {}
        for m in self.mutants:
            seen[m.key] = seen.get(m.key, 0) + 1
            if seen[m.key] > 1:
                m.key += f" #{seen[m.key]}"

    # --- Tokens ---------------------------------------------------------------------------------

    def t(self, i):
        return self.tokens[i].text

    def match(self, i):
        """The index of the bracket that closes the one at i."""
        depth = 0
        for j in range(i, len(self.tokens)):
            if self.t(j) in OPEN:
                depth += 1
            elif self.t(j) in CLOSE:
                depth -= 1
                if depth == 0:
                    return j
        raise ValueError(f"{self.name}: no match for {self.t(i)} at {self.tokens[i].start}")

    def spaced(self, i):
        token = self.tokens[i]
        return self.text[token.start - 1].isspace() and self.text[token.end].isspace()

    def angle(self, i, end):
        """The index after a template's argument list that opens at i."""
        depth = 0
        while i < end:
            if self.t(i) == "<":
                depth += 1
            elif self.t(i) in (">", ">>"):
                depth -= len(self.t(i))
                if depth <= 0:
                    return i + 1
            elif self.t(i) in OPEN:
                i = self.match(i)
            i += 1
        return end

    def until(self, i, end, stops):
        while i < end and self.t(i) not in stops:
            i = self.match(i) + 1 if self.t(i) in OPEN else i + 1
        return i

    def source(self, i, j):
        """The text of the tokens [i, j), on one line and without comments."""
        raw = self.text[self.tokens[i].start:self.tokens[j - 1].end] if i < j else ""
        return self.one_line(raw)

    @staticmethod
    def one_line(raw):
        return re.sub(r"\s+", " ", re.sub(r"//[^\n]*", " ", raw)).strip()

    # --- Mutants and regions -----------------------------------------------------------------------

    def mutant(self, at, label):
        start = self.text.rfind("\n", 0, at) + 1
        line = self.one_line(self.text[start:self.text.find("\n", at)])
        m = Mutant(self.name, line, label, self.place)
        self.mutants.append(m)
        return m

    def region(self, i, j, emit):
        if i < j:
            self.regions.append((self.tokens[i].start, self.tokens[j - 1].end, len(self.regions), emit))

    def write(self, dropped):
        regions = sorted(self.regions, key=lambda r: (r[0], -r[1], r[2]))

        def text(start, end, inside):
            out, at, k = [], start, 0
            while k < len(inside):
                a, b, _, emit = inside[k]
                n = k + 1
                while n < len(inside) and inside[n][0] < b:
                    n += 1
                out += [self.text[at:a], emit(text(a, b, inside[k + 1:n]), dropped)]
                at, k = b, n
            return "".join(out) + self.text[at:end]

        return text(0, len(self.text), regions)

    def token_mutants(self, i, j, statement):
        """Variants (mutant, text) of the tokens [i, j): each one token that is another one."""
        found = []

        def variant(k, new, label=None):
            m = self.mutant(self.tokens[k].start, label or f"{self.t(k)} -> {new}".rstrip())
            a, b = self.tokens[i].start, self.tokens[j - 1].end
            raw = self.text[a:self.tokens[k].start] + new + self.text[self.tokens[k].end:b]
            found.append((m, self.one_line(raw)))

        for k in self.outside_lambdas(i, j):
            token = self.tokens[k]
            if token.text in BINARY and self.spaced(k):
                for new in BINARY[token.text]:
                    variant(k, new)
            elif token.text in ("++", "--"):
                variant(k, "--" if token.text == "++" else "++")
            elif token.text == "!":
                variant(k, "", "! ->")
            elif token.text in WORDS:
                variant(k, WORDS[token.text])
            elif token.kind == "number" and re.fullmatch(r"\d+U?", token.text):
                n = int(token.text.rstrip("U"))
                for new in ({0: [1], 1: [0, 2]}).get(n, [n + 1]):
                    variant(k, str(new))
            elif token.kind == "name" and self.t(k - 1) == "::" and self.t(k - 2) in CIRCLES:
                for circle in CIRCLES[self.t(k - 2)]:
                    if token.text in circle:
                        variant(k, circle[(circle.index(token.text) + 1) % len(circle)])
        if statement:
            found.append((self.mutant(self.tokens[i].start, "deleted: " + self.source(i, j)), ";"))
        return found

    def lambdas(self, i, j):
        """The bodies of lambdas directly in [i, j), as (open, close)."""
        k = i
        while k < j:
            if self.t(k) == "{" and self.t(k - 1) in BEFORE_A_BODY:
                yield k, self.match(k)
                k = self.match(k)
            k += 1

    def outside_lambdas(self, i, j):
        k = i
        while k < j:
            if self.t(k) == "[[" or (self.t(k) == "requires" and self.t(k + 1) == "("):
                k = self.match(k if self.t(k) == "[[" else k + 1)
            elif self.t(k) == "{" and self.t(k - 1) in BEFORE_A_BODY:
                k = self.match(k)
            else:
                yield k
            k += 1

    # --- Scopes ------------------------------------------------------------------------------------

    def _scope(self, i, end):
        """Namespaces and classes: finds functions and initialised members."""
        while i < end:
            if self.t(i) == "template" and self.t(i + 1) == "<":
                i = self.angle(i + 1, end)
                continue
            if self.t(i) == "requires" and self.t(i + 1) == "requires":
                i = self.match(self.until(i, end, {"{"})) + 1
                continue
            j = self.until(i, end, {";", "{", ":"})
            words = {self.t(k) for k in range(i, j)}
            first = next((self.t(k) for k in range(i, j) if self.t(k) not in ("inline",)), "")
            if self.t(j) == ":" and first in ("public", "private", "protected"):
                i = j + 1
                continue
            if self.t(j) == ":" and first in ("class", "struct"):
                j = self.until(j + 1, end, {";", "{"})
            if first in ("using", "typedef", "static_assert", "friend", "enum", "concept") or self.t(j) == ";":
                j = self.until(j, end, {";"})
                if self.t(j) == ";" and not words & (SKIPPED | {"static", "extern", "thread_local", "virtual"}):
                    self._member(i, j)
                i = j + 1
            elif first in ("namespace", "class", "struct", "union"):
                j = self.until(j, end, {"{"})
                self._scope(j + 1, self.match(j))
                i = self.match(j) + 1
            elif "operator" in words or "(" in words and self.until(i, j, {"="}) >= j:
                i = self._function(i, j, end)
            else:
                i = self.until(j, end, {";"}) + 1

    def _member(self, i, j):
        equals = self.until(i, j, {"="})
        if equals < j:
            self.place = (self.tokens[i].start, self.tokens[j].end)
            self._initializer(equals + 1, j)

    def _function(self, i, j, end):
        start, outer, arguments = i, self.place, []
        while self.t(j) == "{" and self.t(j - 1) == "requires":  # of what the template takes
            j = self.match(j) + 1
        self.returns_bool = "bool" in [self.t(k) for k in range(i, self.until(i, j, {"("}))]
        if self.t(j) == ":":  # a constructor's initialisers
            k = j + 1
            while self.t(k) != "{" or self.t(k - 1) not in (")", "}"):
                if self.t(k) in OPEN:
                    if self.t(k) in ("(", "{") and self.match(k) > k + 1:
                        arguments.append((k + 1, self.match(k)))
                    k = self.match(k)
                k += 1
            j = k
        self.place = (self.tokens[start].start, self.tokens[self.match(j)].end)
        for those in arguments:
            self._arguments(*those)
        if "consteval" not in [self.t(k) for k in range(i, j)]:  # which no switch at run time reaches
            self._block(j + 1, self.match(j))
        self.place = outer
        return self.match(j) + 1

    def _arguments(self, i, j):
        while i < j:
            k = self.until(i, j, {","})
            self._initializer(i, k)
            i = k + 1

    def _initializer(self, i, j):
        """An expression whose type a mutant keeps."""
        variants = self.token_mutants(i, j, False) if i < j and self.t(i) not in ("{", "[") else []

        def emit(inner, dropped):
            left = [(m, v) for m, v in variants if m.number not in dropped]
            if not left:
                return inner
            return "(" + "".join(
                f"\n mutation::on({m.number}) ? ({v}) /*m{m.number}*/ :\n" for m, v in left) + f"({inner}))"

        if variants:
            self.region(i, j, emit)
        self._lambda_bodies(i, j)

    def _lambda_bodies(self, i, j):
        outer, self.returns_bool = self.returns_bool, True  # as far as it compiles
        for a, b in self.lambdas(i, j):
            self._block(a + 1, b)
        self.returns_bool = outer

    # --- Statements ----------------------------------------------------------------------------------

    def _block(self, i, end):
        guard = None  # (name, mutex) of the lock that this block holds
        previous = None
        while i < end:
            while self.t(i) in ("case", "default"):
                i = self.until(i, end, {":"}) + 1
            j = self._statement_end(i, end)
            kind = self._kind(i, j)
            found = self._guard(i, j) if kind == "declaration" else None
            movable = kind in ("expression", "if")
            if previous and movable and "expression" in (previous[2], kind):
                self._swap(*previous[:2], i, j)
            if guard and kind in ("expression", "declaration", "if", "for", "while") and not found:
                if guard[0] in [self.t(k) for k in range(i, j)]:
                    guard = None
                else:
                    self._outside_the_lock(i, j, guard[1])
            self._statement(i, j)
            if found:
                guard = found
            previous = (i, j, kind) if movable else None
            i = j

    def _kind(self, i, j):
        if self.t(i) in ("if", "for", "while", "switch", "do", "try", "return", "throw", "{", "class", "struct",
                         "union", "using", "static"):
            return self.t(i)
        if self.t(i) in SKIPPED or re.match(r"(?:detail::)?check_\w+<.*>\(\);", self.source(i, j)):  # static_assert
            return "skipped"
        return "declaration" if self._declares(i, j) else "expression"

    def _declares(self, i, j):
        """Whether a statement declares something: a name follows a type."""
        if self.t(i) in ("alignas", "const", "auto", "[["):
            return True
        k = i
        while k < j and self.t(k) not in ("=", "(", "{", ";", ".", "->", "+="):
            if self.t(k) == "<":
                k = self.angle(k, j)
                continue
            if k > i and self.tokens[k].kind == "name" and (
                    self.tokens[k - 1].kind == "name" or self.t(k - 1) in ("*", "&", "&&", ">", ">>")
                    and k - 1 > i):
                return True
            k += 1
        return False

    def _statement_end(self, i, end):
        if self.t(i) == "{":
            return self.match(i) + 1
        if self.t(i) in ("if", "for", "while", "switch"):
            k = i + 1
            while self.t(k) != "(":
                k += 1
            k = self._statement_end(self.match(k) + 1, end)
            if self.t(i) == "if" and k < end and self.t(k) == "else":
                k = self._statement_end(k + 1, end)
            return k
        if self.t(i) == "try":
            k = self.match(i + 1) + 1
            while k < end and self.t(k) == "catch":
                k = self.match(self.match(k + 1) + 1) + 1
            return k
        return self.until(i, end, {";"}) + 1

    def _statement(self, i, j):
        kind = self._kind(i, j)
        if kind == "{":
            self._block(i + 1, j - 1)
        elif kind in ("if", "while", "for"):
            self._control(i, j, kind)
        elif kind == "switch":
            self._statement(self.match(i + 1) + 1, j)
        elif kind == "try":
            k = i + 1
            while k < j:
                self._block(k + 1, self.match(k))
                k = self.match(k) + 1
                if k < j and self.t(k) == "catch":
                    k = self.match(k + 1) + 1
        elif kind == "return":
            self._return(i, j)
        elif kind in ("class", "struct", "union"):
            self._scope(i, j)
        elif kind == "declaration":
            self._declaration(i, j)
        elif kind == "expression":
            self._expression(i, j)

    def _control(self, i, j, kind):
        k = i + 1
        constant = self.t(k) == "constexpr"
        while self.t(k) != "(":
            k += 1
        close = self.match(k)
        if kind == "for":
            first = self.until(k + 1, close, {";"})
            if first < close:
                second = self.until(first + 1, close, {";"})
                self._declaration(k + 1, first)
                self._condition(first + 1, second, ["false"])
                self._step(second + 1, close)
        elif not constant:
            body = self.until(k + 1, close, {";"})
            start = body + 1 if body < close else k + 1  # after an init-statement
            if self.until(start, close, {"="}) == close:
                self._condition(start, close, ["false"] if kind == "while" else ["true", "false"])
        after = self._statement_end(close + 1, j)
        self._statement(close + 1, after)
        if after < j:
            self._statement(after + 1, j)

    def _condition(self, i, j, whole):
        if i >= j:
            return
        variants = self.token_mutants(i, j, False)
        if self.source(i, j) not in ("true", "false"):
            variants += [(self.mutant(self.tokens[i].start, f"({self.source(i, j)}) -> {w}"), w)
                         for w in whole]

        def emit(inner, dropped):
            left = [(m, v) for m, v in variants if m.number not in dropped]
            return "".join(f"\n mutation::on({m.number}) ? bool({v}) /*m{m.number}*/ :\n"
                           for m, v in left) + (f"bool({inner})" if left else inner)

        self.region(i, j, emit)
        self._lambda_bodies(i, j)

    def _step(self, i, j):
        variants = self.token_mutants(i, j, False) if i < j else []

        def emit(inner, dropped):
            left = [(m, v) for m, v in variants if m.number not in dropped]
            return "".join(f"\n mutation::on({m.number}) ? void({v}) /*m{m.number}*/ :\n"
                           for m, v in left) + (f"void({inner})" if left else inner)

        if variants:
            self.region(i, j, emit)

    def _return(self, i, j):
        a, b = i + 1, j - 1
        if a >= b:
            return
        variants = self.token_mutants(a, b, False)
        if self.returns_bool and self.t(a) not in ("{", "true", "false") and self.tokens[a].kind != "number":
            variants.append((self.mutant(self.tokens[a].start, f"returned: !({self.source(a, b)})"),
                             f"!({self.source(a, b)})"))

        def emit(inner, dropped):
            left = [(m, v) for m, v in variants if m.number not in dropped]
            return "{" + "".join(f"\n if (mutation::on({m.number})) return {v}; /*m{m.number}*/\n"
                                 for m, v in left) + inner + "}" if left else inner

        self.region(i, j, emit)
        self._lambda_bodies(a, b)

    def _guard(self, i, j):
        source = self.source(i, j)
        m = re.fullmatch(r"(?:const )?(?:detail::|std::)?(?:lock|lock_guard|unique_lock) (\w+)\((.*)\);",
                         source)
        return m.groups() if m else None

    def _declaration(self, i, j):
        guard = self._guard(i, j)
        if guard:
            open_ = self.until(i, j, {"("})
            m = self.mutant(self.tokens[i].start, "not locked")

            def emit(inner, dropped):
                if m.number in dropped:
                    return inner
                return f"(\n mutation::on({m.number}) ? mutation::spare{inner} /*m{m.number}*/ :\n {inner})"

            self.region(open_, self.match(open_) + 1, emit)
            return
        last = j - 1 if self.t(j - 1) == ";" else j
        k = self.until(i, last, {"="})
        if k < last:
            self._initializer(k + 1, last)
        else:
            self._lambda_bodies(i, last)

    def _expression(self, i, j):
        variants = self.token_mutants(i, j, True)

        def emit(inner, dropped):
            left = [(m, v) for m, v in variants if m.number not in dropped]
            return "{" + "".join(f"\n if (mutation::on({m.number})) {{ {v} }} else /*m{m.number}*/\n"
                                 for m, v in left) + "{" + inner + "}}"

        self.region(i, j, emit)
        self._lambda_bodies(i, j)

    def _swap(self, a, b, i, j):
        """[a, b) and [i, j) in the other order."""
        if self._independent(self.source(a, b), self.source(i, j)):
            return
        m = self.mutant(self.tokens[a].start,
                        f"after: {self.source(i, j)}" if self._kind(i, j) == "expression" else
                        f"after: {self.source(i, self.match(i + 1) + 1)}")
        second = self.source(i, j)

        def emit_first(inner, dropped):
            if m.number in dropped:
                return inner
            return f"\n if (mutation::on({m.number})) {{ {second} }} /*m{m.number}*/\n{inner}"

        def emit_second(inner, dropped):
            if m.number in dropped:
                return inner
            return f"if (!mutation::on({m.number})) {{ {inner} }}"

        self.region(a, b, emit_first)
        self.region(i, j, emit_second)

    @staticmethod
    def _independent(first, second):
        """Whether both are assignments without calls, and neither names what the other writes to."""
        written = [re.fullmatch(r"(?:\+\+|--)?[\w.>:-]*?(\w+)(?: [+*-]?= [^(){}]+)?;", s) for s in (first, second)]
        return all(written) and not re.search(rf"\b{written[0][1]}\b", second) and \
            not re.search(rf"\b{written[1][1]}\b", first)

    def _outside_the_lock(self, i, j, mutex):
        m = self.mutant(self.tokens[i].start, f"outside the lock: {self.source(i, min(j, i + 12))}")

        def emit(inner, dropped):
            if m.number in dropped:
                return inner
            return (f"\n if (mutation::on({m.number})) {mutex}.unlock(); /*m{m.number}*/\n{inner}"
                    f"\n if (mutation::on({m.number})) {mutex}.lock(); /*m{m.number}*/\n")

        self.region(i, j, emit)
