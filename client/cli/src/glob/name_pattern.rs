//! Patterns of single names, matched by character: `*`, `?`, `[a-z]`, `[!a-z]`, `{a,b}`, `\` before
//! a character that is meant as it is.

/// Most alternatives that braces may stand for, lest `{a,b}{a,b}...` fills the memory.
const ALTERNATIVES_MAX: usize = 1000;
/// Longest pattern: each of its alternatives may be as long, and names have 255 bytes.
const PATTERN_CHARS_MAX: usize = 1024;
/// Deepest braces within braces: each level takes a part of the stack.
const NESTING_MAX: usize = 32;

/// A pattern, ready to match names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    alternatives: Vec<Vec<Token>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    Literal(char),
    /// One character.
    AnyChar,
    /// Any number of characters.
    AnyRun,
    /// One character in, or not in, these ranges.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPattern {
    /// `[` without its end.
    #[error("`[` without `]`")]
    OpenClass,
    /// `{` without its end.
    #[error("`{{` without `}}`")]
    OpenBrace,
    /// A backslash with nothing behind it.
    #[error("nothing after `\\`")]
    OpenEscape,
    /// A range from a later to an earlier character.
    #[error("`{0}-{1}` runs backwards")]
    BackwardRange(char, char),
    /// More than [`ALTERNATIVES_MAX`].
    #[error("braces stand for more than {ALTERNATIVES_MAX} alternatives")]
    TooManyAlternatives,
    /// More than [`PATTERN_CHARS_MAX`].
    #[error("{0} characters are more than {PATTERN_CHARS_MAX}")]
    TooLong(usize),
    /// More than [`NESTING_MAX`].
    #[error("braces within braces, more than {NESTING_MAX} deep")]
    TooDeep,
}

impl NamePattern {
    /// Reads `text`.
    ///
    /// # Errors
    /// If it is malformed.
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let chars: Vec<char> = text.chars().collect();
        if chars.len() > PATTERN_CHARS_MAX {
            return Err(BadPattern::TooLong(chars.len()));
        }
        let mut reader = Reader { chars: &chars, position: 0 };
        Ok(Self { alternatives: reader.alternatives(0)? })
    }

    /// Whether the whole of `name` matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        self.alternatives.iter().any(|tokens| tokens_match(tokens, &name))
    }
}

struct Reader<'a> {
    chars: &'a [char],
    position: usize,
}

impl Reader<'_> {
    /// Reads to the end, or, that many braces `deep`, to their end, where a comma separates alternatives.
    fn alternatives(&mut self, deep: usize) -> Result<Vec<Vec<Token>>, BadPattern> {
        if deep > NESTING_MAX {
            return Err(BadPattern::TooDeep);
        }
        let in_braces = deep > 0;
        let mut done = Vec::new();
        let mut current = vec![Vec::new()];
        while let Some(char) = self.next() {
            match char {
                '}' if in_braces => {
                    done.append(&mut current);
                    return Ok(done);
                }
                ',' if in_braces => {
                    done.append(&mut current);
                    current = vec![Vec::new()];
                }
                '{' => current = product(&current, &self.alternatives(deep + 1)?)?,
                '[' => append(&mut current, &self.class()?),
                '*' => append(&mut current, &Token::AnyRun),
                '?' => append(&mut current, &Token::AnyChar),
                '\\' => {
                    let escaped = self.next().ok_or(BadPattern::OpenEscape)?;
                    append(&mut current, &Token::Literal(escaped));
                }
                char => append(&mut current, &Token::Literal(char)),
            }
        }
        if in_braces { Err(BadPattern::OpenBrace) } else { Ok(current) }
    }

    fn class(&mut self) -> Result<Token, BadPattern> {
        let negated = self.peek().is_some_and(|char| char == '!' || char == '^');
        if negated {
            self.position += 1;
        }
        let mut ranges = Vec::new();
        loop {
            let from = self.next().ok_or(BadPattern::OpenClass)?;
            // As the first of its class `]` means itself.
            if from == ']' && !ranges.is_empty() {
                return Ok(Token::Class { negated, ranges });
            }
            let is_range = self.peek() == Some('-')
                && self.chars.get(self.position + 1).is_some_and(|char| *char != ']');
            if !is_range {
                ranges.push((from, from));
                continue;
            }
            self.position += 1;
            let to = self.next().ok_or(BadPattern::OpenClass)?;
            if to < from {
                return Err(BadPattern::BackwardRange(from, to));
            }
            ranges.push((from, to));
        }
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.position += 1;
        Some(char)
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.position).copied()
    }
}

fn append(alternatives: &mut [Vec<Token>], token: &Token) {
    for tokens in alternatives {
        tokens.push(token.clone());
    }
}

/// Every one of `heads` followed by every one of `tails`.
fn product(heads: &[Vec<Token>], tails: &[Vec<Token>]) -> Result<Vec<Vec<Token>>, BadPattern> {
    if heads.len().saturating_mul(tails.len()) > ALTERNATIVES_MAX {
        return Err(BadPattern::TooManyAlternatives);
    }
    let pairs = heads.iter().flat_map(|head| tails.iter().map(move |tail| (head, tail)));
    Ok(pairs.map(|(head, tail)| [&head[..], &tail[..]].concat()).collect())
}

/// Takes time in proportion to both lengths multiplied, whatever the pattern: on a mismatch only the
/// last `*` takes one character more.
fn tokens_match(tokens: &[Token], name: &[char]) -> bool {
    let (mut token, mut char) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while char < name.len() {
        match tokens.get(token) {
            Some(Token::AnyRun) => {
                retry = Some((token, char));
                token += 1;
                continue;
            }
            Some(one) if one.takes(name[char]) => {
                token += 1;
                char += 1;
                continue;
            }
            Some(_) | None => {}
        }
        let Some((run, taken)) = retry else { return false };
        retry = Some((run, taken + 1));
        token = run + 1;
        char = taken + 1;
    }
    tokens[token..].iter().all(|token| *token == Token::AnyRun)
}

impl Token {
    fn takes(&self, char: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == char,
            Self::AnyChar => true,
            Self::AnyRun => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&char)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn each_kind_of_token_takes_what_it_should() {
        for (pattern, name, expected) in [
            ("*.gz", "x.gz", true),
            ("*.gz", ".gz", true),
            ("*.gz", "x.gz.b", false),
            ("?", "ü", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[a-]", "-", true),
            ("{x,y*}z", "yyyz", true),
            ("{x,y*}z", "xyz", false),
            ("{a,{b,c}d}", "cd", true),
            ("{a,}b", "b", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a,b}", "a,b}", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused_with_the_reason() {
        for (pattern, error) in [
            ("[x", BadPattern::OpenClass),
            ("[]", BadPattern::OpenClass),
            ("[", BadPattern::OpenClass),
            ("{a,b", BadPattern::OpenBrace),
            ("a\\", BadPattern::OpenEscape),
            ("[z-a]", BadPattern::BackwardRange('z', 'a')),
        ] {
            assert_eq!(NamePattern::parse(pattern), Err(error), "{pattern}");
        }
        let many = "{a,b}".repeat(10);
        assert_eq!(NamePattern::parse(&many), Err(BadPattern::TooManyAlternatives));
        assert!(NamePattern::parse(&"{a,b}".repeat(9)).is_ok());
        assert_eq!(NamePattern::parse(&"a".repeat(1025)), Err(BadPattern::TooLong(1025)));
        assert!(NamePattern::parse(&"a".repeat(1024)).is_ok());
        let nested = |deep: usize| format!("{}a{}", "{".repeat(deep), "}".repeat(deep));
        assert_eq!(NamePattern::parse(&nested(33)), Err(BadPattern::TooDeep));
        assert!(NamePattern::parse(&nested(32)).is_ok());
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = format!("{}b", "a*".repeat(100));
        assert!(!matches(&pattern, &"a".repeat(255)));
    }

    /// Too simple to be wrong, and to be fast.
    fn simple_match(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                (0..=name.len()).any(|taken| simple_match(rest, &name[taken..]))
            }
            (['?', rest @ ..], [_, left @ ..]) => simple_match(rest, left),
            ([one, rest @ ..], [other, left @ ..]) if one == other => simple_match(rest, left),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn stars_match_as_a_simple_search_does(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &name), simple_match(&chars(&pattern), &chars(&name)));
        }

        #[test]
        fn any_text_is_a_pattern_or_refused(pattern in "[]\\[{},*?!^\\\\a-c-]{0,20}") {
            if let Ok(parsed) = NamePattern::parse(&pattern) {
                parsed.matches("abc");
            }
        }
    }
}
