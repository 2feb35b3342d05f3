//! The source of a setting's value, and the errors that name it.

use std::fmt;
use std::path::PathBuf;

use crate::diagnostic::Diagnostic;

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Profile(&'static str),
    File(PathBuf),
    Variable(String),
    /// The environment, where the message names the variable itself.
    Environment,
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Profile(name) => write!(out, "profile {name}"),
            Origin::File(path) => write!(out, "{}", path.display()),
            Origin::Variable(name) => write!(out, "variable {name}"),
            Origin::Environment => write!(out, "environment"),
            Origin::Flag(flag) => write!(out, "flag {flag}"),
        }
    }
}

/// An error of a setting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The settings file is invalid.
    #[error("{0}")]
    InFile(Box<Diagnostic>),
    /// The project does not exist, or is not a directory.
    #[error("cannot open project directory {}", path.display())]
    NoProject { path: PathBuf, source: std::io::Error },
    /// The settings file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A variable or flag is invalid.
    #[error("{origin}: {error}")]
    Value { origin: Origin, error: ValueError },
}

/// The reason why a name or value is rejected.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ValueError {
    /// No setting or profile has the name.
    #[error("unknown {what} `{name}`{suggestion}")]
    UnknownName { what: &'static str, name: String, suggestion: String },
    /// The setting does not accept the value; the text says which values it accepts.
    #[error("{0}")]
    Invalid(String),
    /// The value of a variable is not text.
    #[error("invalid value: expected UTF-8")]
    NotUtf8,
}

impl From<Diagnostic> for ConfigError {
    fn from(diagnostic: Diagnostic) -> Self {
        ConfigError::InFile(Box::new(diagnostic))
    }
}
