//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a configuration is refused: file, line, key, reason.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    key: String,
    reason: String,
    source: Option<std::io::Error>,
}

/// A value that is refused although it could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) key: String,
    pub(super) reason: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }

    pub(super) fn in_file(self, file: &Path) -> ConfigError {
        ConfigError { file: file.to_owned(), line: None, key: self.key, reason: self.reason, source: None }
    }
}

impl ConfigError {
    pub(super) fn read(file: &Path, source: std::io::Error) -> Self {
        let reason = "cannot be read".to_owned();
        Self { file: file.to_owned(), line: None, key: String::new(), reason, source: Some(source) }
    }

    pub(super) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().and_then(|span| text.get(..span.start));
        let line = at.map(|before| before.matches('\n').count() + 1);
        let key = line.map(|line| key_at(text, line)).unwrap_or_default();
        let reason = error.message().trim().replace('\n', "; ");
        Self { file: file.to_owned(), line, key, reason, source: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// The key that stands at a line, with its table: the parser tells the place but not the path. Entries of an array of tables
/// are counted, `targets[0]` for the first.
fn key_at(text: &str, line: usize) -> String {
    let mut table = String::new();
    let mut key = String::new();
    let mut entries: Vec<String> = Vec::new();
    for text in text.lines().take(line).map(str::trim) {
        if let Some(name) = text.strip_prefix("[[").and_then(|rest| rest.split_once("]]")).map(|(name, _)| name.trim())
        {
            let index = entries.iter().filter(|other| *other == name).count();
            entries.push(name.to_owned());
            table = format!("{name}[{index}]");
            key.clear();
        } else if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.trim().clone_into(&mut table);
            key.clear();
        } else if let Some((name, _)) = text.split_once('=') {
            let name = name.trim();
            if !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c)) {
                name.clone_into(&mut key);
            }
        }
    }
    match (table.as_str(), key.as_str()) {
        (table, "") => table.to_owned(),
        ("", key) => key.to_owned(),
        (table, key) => format!("{table}.{key}"),
    }
}
