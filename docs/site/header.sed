# What Doxygen is shown of a header, so that its comments can be written for who reads them there.
# Doxygen 1.9 does not know `namespace a::inline b`.
s/^namespace singleflight::inline SINGLEFLIGHT_ABI/namespace singleflight/
# The licence's line tells Doxygen to document the file, macros included.
1s|.*|/// @file|
# The fields of a comment become the headings of paragraphs (ALIASES in docs/Doxyfile).
s!^( *///) Returns: !\1 @return !
s!^( *///) Precondition: !\1 @pre !
s!^( *///) (Effects|Throws|Blocks|Complexity|Lifetime|Thread safety|Cost): !\1 @field{\2} !
s!^( *///) Guarantees:$!\1 @field{Guarantees}!
# Private members are nobody's business; Doxygen would offer links to where they are not.
/^ private:$/,/^(};| public:)$/{
  /^(};| public:)$/!s/.*//
}
