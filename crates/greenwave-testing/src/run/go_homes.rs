//! The locations of Go's settings, caches and modules.

use std::path::{Path, PathBuf};

use greenwave_dir::read_regular_text;

use crate::Environment;

/// Maximum size of Go's settings, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// Returns the locations of Go's settings, caches and modules, which may not exist yet
/// (<https://pkg.go.dev/cmd/go#hdr-Environment_variables>).
///
/// Locations that `go env -w` has set are omitted, because `go` reads them itself, and so are
/// variables that every test sees.
pub(crate) fn go_homes(environment: &Environment) -> Vec<(&'static str, PathBuf)> {
    let home = environment.get("HOME").map(Path::new);
    let settings = go_settings(environment);
    let text = settings
        .as_ref()
        .and_then(|path| read_regular_text(path, SETTINGS_BYTES_MAX).ok())
        .unwrap_or_default();
    let is_configured = |name: &str| text.lines().any(|line| line.split('=').next() == Some(name));
    let cache = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    let cache = user_directory(environment, "XDG_CACHE_HOME", cache);
    let defaults = [
        ("GOENV", settings),
        ("GOPATH", home.map(|home| home.join("go"))),
        ("GOCACHE", cache.map(|directory| directory.join("go-build"))),
        ("GOMODCACHE", None),
    ];
    let location = |(name, default): (&'static str, Option<PathBuf>)| {
        if let Some(set) = environment.get(name).filter(|set| !set.is_empty()) {
            let is_visible = Environment::BASE.contains(&name) && !environment.is_set_by_outer(name);
            return (!is_visible).then(|| (name, PathBuf::from(set)));
        }
        default.filter(|_| !is_configured(name)).map(|path| (name, path))
    };
    defaults.into_iter().filter_map(location).collect()
}

/// Returns the file that `go env -w` writes.
pub(crate) fn go_settings(environment: &Environment) -> Option<PathBuf> {
    let config = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
    let default = user_directory(environment, "XDG_CONFIG_HOME", config)?.join("go/env");
    Some(environment.get("GOENV").map_or(default, PathBuf::from))
}

/// Returns Go's module and build caches.
pub(crate) fn go_caches(environment: &Environment) -> Vec<PathBuf> {
    let path = environment.get("GOPATH").map(|path| ("GOPATH", PathBuf::from(path)));
    let cache = |(name, path): (&str, PathBuf)| match name {
        "GOCACHE" | "GOMODCACHE" => Some(path),
        "GOPATH" => Some(path.join("pkg")),
        _ => None,
    };
    go_homes(environment).into_iter().chain(path).filter_map(cache).collect()
}

/// Returns a directory of the user, which a variable may name by an absolute path.
fn user_directory(environment: &Environment, variable: &str, default: &str) -> Option<PathBuf> {
    let set = environment.get(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| Some(Path::new(environment.get("HOME")?).join(default)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn homes(variables: &[(&str, &Path)]) -> Vec<(&'static str, PathBuf)> {
        let variables = variables.iter().map(|(name, path)| ((*name).into(), path.as_os_str().to_owned()));
        go_homes(&Environment::new(variables))
    }

    fn of(all: &[(&'static str, PathBuf)], name: &str) -> Option<PathBuf> {
        all.iter().find(|(it, _)| *it == name).map(|(_, path)| path.clone())
    }

    #[test]
    fn locations_of_go_are_those_of_the_user() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path();
        let default = homes(&[("HOME", home)]);
        assert_eq!((of(&default, "GOPATH"), of(&default, "GOMODCACHE")), (Some(home.join("go")), None));
        let set = homes(&[("HOME", home), ("GOCACHE", Path::new("/c")), ("GOMODCACHE", Path::new("/m"))]);
        assert_eq!((of(&set, "GOCACHE"), of(&set, "GOMODCACHE")), (Some("/c".into()), Some("/m".into())));
        let cached = homes(&[("HOME", home), ("XDG_CACHE_HOME", Path::new("/x"))]);
        assert_eq!(of(&cached, "GOCACHE"), Some("/x/go-build".into()));
        // `go env -w` has written it, and a variable would override it.
        let settings = home.join("env");
        fs::write(&settings, "GOCACHE=/w\nGOFLAGS=-v\n").unwrap();
        let configured = homes(&[("HOME", home), ("GOENV", &settings)]);
        assert_eq!((of(&configured, "GOCACHE"), of(&configured, "GOENV")), (None, Some(settings)));
    }
}
