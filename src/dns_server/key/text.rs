//! The text of a key file: the `key` statement of named.conf, or `algorithm:name:secret`.
//!
//! Pure. Messages never repeat what may be a secret.

use std::fmt;

use data_encoding::BASE64;
use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;

/// Shortest secret that is taken, in bytes: what nobody guesses.
const SHORTEST_SECRET: usize = 16;

/// What a file says.
pub(super) struct Parts {
    pub(super) name: Name,
    pub(super) algorithm: Algorithm,
    pub(super) secret: Vec<u8>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Parts, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Problem::new(line, "not a text file")
    })?;
    let mut tokens = Tokens {
        rest: text,
        line: 1,
    };
    let (line, first) = tokens.expect(&format!("a key: {STATEMENT}, or {ONE_LINE}"))?;
    let key = match &first {
        Token::Word(word) if word == "key" => statement(&mut tokens)?,
        Token::Word(word) if word.contains(':') => one_line(line, word)?,
        other => return Err(Problem::expected(line, STATEMENT, other)),
    };
    match tokens.next()? {
        None => Ok(key),
        Some((line, _)) => Err(Problem::new(
            line,
            "one key to a file, but here begins something else",
        )),
    }
}

/// How a key statement looks; stands in messages.
const STATEMENT: &str = "`key \"name\" { algorithm hmac-sha256; secret \"base64\"; };`";

/// How the other form looks.
const ONE_LINE: &str = "`hmac-sha256:name:base64`";

/// What follows the word `key`.
fn statement(tokens: &mut Tokens<'_>) -> Result<Parts, Problem> {
    let (line, name) = tokens.text("the name of the key")?;
    let name = key_name(line, &name)?;
    tokens.mark('{')?;
    let mut algorithm = None;
    let mut secret = None;
    let end = loop {
        match tokens.expect("`algorithm`, `secret` or `}`")? {
            (line, Token::Mark('}')) => break line,
            (line, Token::Word(word)) if word == "algorithm" && algorithm.is_none() => {
                let (_, text) = tokens.text("an algorithm, such as hmac-sha256")?;
                algorithm = Some(Algorithm::parse(line, &text)?);
            }
            (_, Token::Word(word)) if word == "secret" && secret.is_none() => {
                let (line, text) = tokens.text("the secret in base64")?;
                secret = Some(parse_secret(line, &text)?);
            }
            (line, other) => {
                let expected = "`algorithm` and `secret`, each once, then `}`";
                return Err(Problem::expected(line, expected, &other));
            }
        }
        tokens.mark(';')?;
    };
    tokens.mark(';')?;
    let missing = |what| Problem::new(end, format!("the key has no {what}: {STATEMENT}"));
    Ok(Parts {
        name,
        algorithm: algorithm.ok_or_else(|| missing("algorithm"))?,
        secret: secret.ok_or_else(|| missing("secret"))?,
    })
}

/// `hmac-sha256:name:base64`, as `dig -y` and `nsupdate -y` take it.
fn one_line(line: usize, word: &str) -> Result<Parts, Problem> {
    let mut parts = word.splitn(3, ':');
    let (Some(algorithm), Some(name), Some(secret)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(Problem::new(line, format!("expected {ONE_LINE}")));
    };
    Ok(Parts {
        name: key_name(line, name)?,
        algorithm: Algorithm::parse(line, algorithm)?,
        secret: parse_secret(line, secret)?,
    })
}

fn key_name(line: usize, text: &str) -> Result<Name, Problem> {
    let bad = |reason: &dyn fmt::Display| {
        Problem::new(line, format!("`{text}` is no name for a key: {reason}"))
    };
    match Name::from_ascii(text) {
        Ok(name) if name.is_root() || text.is_empty() => Err(bad(&"it is empty")),
        Ok(name) => Ok(name),
        Err(error) => Err(bad(&error)),
    }
}

/// Never repeats the text: it is a secret.
fn parse_secret(line: usize, text: &str) -> Result<Vec<u8>, Problem> {
    let secret = BASE64
        .decode(text.as_bytes())
        .map_err(|error| Problem::new(line, format!("the secret is not base64: {error}")))?;
    if secret.len() < SHORTEST_SECRET {
        let length = secret.len();
        return Err(Problem::new(
            line,
            format!("a secret of {length} bytes is too short: at least {SHORTEST_SECRET}"),
        ));
    }
    Ok(secret)
}

/// Those that can be used and should be (RFC 8945 section 6).
#[derive(Debug, Clone, Copy)]
pub(super) enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    fn parse(line: usize, text: &str) -> Result<Algorithm, Problem> {
        let lower = text.to_ascii_lowercase();
        match lower.strip_suffix('.').unwrap_or(&lower) {
            "hmac-sha256" => Ok(Algorithm::Sha256),
            "hmac-sha384" => Ok(Algorithm::Sha384),
            "hmac-sha512" => Ok(Algorithm::Sha512),
            _ => Err(Problem::new(
                line,
                format!(
                    "the algorithm `{text}` is not taken: hmac-sha256, hmac-sha384 or hmac-sha512"
                ),
            )),
        }
    }

    pub(super) fn tsig(self) -> TsigAlgorithm {
        match self {
            Algorithm::Sha256 => TsigAlgorithm::HmacSha256,
            Algorithm::Sha384 => TsigAlgorithm::HmacSha384,
            Algorithm::Sha512 => TsigAlgorithm::HmacSha512,
        }
    }
}

/// What is wrong with a text, and where.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) problem: String,
}

impl Problem {
    fn new(line: usize, problem: impl Into<String>) -> Problem {
        Problem {
            line,
            problem: problem.into(),
        }
    }

    /// Quotes are not repeated: a secret may be in them.
    fn expected(line: usize, expected: &str, found: &Token) -> Problem {
        let found = match found {
            Token::Word(word) if word.len() <= 20 => format!("`{word}`"),
            Token::Word(_) => "a long word".to_owned(),
            Token::Quoted(_) => "a text in quotes".to_owned(),
            Token::Mark(mark) => format!("`{mark}`"),
        };
        Problem::new(line, format!("expected {expected}, found {found}"))
    }
}

/// A piece of a file in the style of named.conf.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Mark(char),
}

struct Tokens<'a> {
    rest: &'a str,
    line: usize,
}

impl Tokens<'_> {
    /// The next one with its line, or the end.
    fn next(&mut self) -> Result<Option<(usize, Token)>, Problem> {
        self.skip_blanks()?;
        let line = self.line;
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        let token = match first {
            '{' | '}' | ';' => {
                self.advance(1);
                Token::Mark(first)
            }
            '"' => {
                let text = &self.rest[1..];
                let Some(end) = text
                    .find(['"', '\n'])
                    .filter(|at| text[*at..].starts_with('"'))
                else {
                    return Err(Problem::new(line, "a quote that does not end in its line"));
                };
                let quoted = text[..end].to_owned();
                self.advance(end + 2);
                Token::Quoted(quoted)
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"');
                let end = self.rest.find(ends).unwrap_or(self.rest.len());
                let word = self.rest[..end].to_owned();
                self.advance(end);
                Token::Word(word)
            }
        };
        Ok(Some((line, token)))
    }

    /// The next one, which must be there.
    fn expect(&mut self, expected: &str) -> Result<(usize, Token), Problem> {
        let end = || format!("expected {expected}, but the file ends");
        self.next()?.ok_or_else(|| Problem::new(self.line, end()))
    }

    /// A word, with quotes or without.
    fn text(&mut self, expected: &str) -> Result<(usize, String), Problem> {
        match self.expect(expected)? {
            (line, Token::Word(text) | Token::Quoted(text)) => Ok((line, text)),
            (line, other) => Err(Problem::expected(line, expected, &other)),
        }
    }

    fn mark(&mut self, mark: char) -> Result<(), Problem> {
        let expected = format!("`{mark}`");
        match self.expect(&expected)? {
            (_, Token::Mark(found)) if found == mark => Ok(()),
            (line, other) => Err(Problem::expected(line, &expected, &other)),
        }
    }

    /// White space and comments. Inside a word `//` is no comment: base64 has slashes.
    fn skip_blanks(&mut self) -> Result<(), Problem> {
        loop {
            let rest = self.rest;
            let blank = rest.len() - rest.trim_start().len();
            let comment = if rest.starts_with("//") || rest.starts_with('#') {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").map(|at| at + 2);
                end.ok_or_else(|| Problem::new(self.line, "a comment `/*` without its `*/`"))?
            } else {
                0
            };
            match blank.max(comment) {
                0 => return Ok(()),
                length => self.advance(length),
            }
        }
    }

    fn advance(&mut self, length: usize) {
        let (passed, rest) = self.rest.split_at(length);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }
}
