//! The environment variables that cargo and the compiler read.

/// Variables that change what cargo builds or how it runs tests. Tests see them, and they are part
/// of the keys of results
/// (<https://doc.rust-lang.org/cargo/reference/environment-variables.html>).
pub(super) const VARIABLES: [&str; 24] = [
    "CARGO_BUILD_RUSTC*",
    "CARGO_BUILD_RUSTDOC*",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTDOCFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_PROFILE_*",
    "CARGO_RESOLVER_*",
    "CARGO_TARGET_*_LINKER",
    "CARGO_TARGET_*_RUNNER",
    "CARGO_TARGET_*_RUSTFLAGS",
    "CARGO_UNSTABLE_*",
    "AR",
    "CC",
    "CXX",
    "CFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "PKG_CONFIG_PATH",
    "RUSTC*",
    "RUSTDOC*",
    "RUST_BACKTRACE",
    "RUST_MIN_STACK",
    "RUST_TEST_THREADS",
];

/// Variables that change how cargo builds, but not what. Only cargo sees them.
pub(super) const BUILD_VARIABLES: [&str; 22] = [
    TARGET_DIR,
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_BUILD_INCREMENTAL",
    "CARGO_BUILD_JOBS",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_CACHE_*",
    "CARGO_HTTP_*",
    "CARGO_INCREMENTAL",
    "CARGO_NET_*",
    "CARGO_REGISTRIES_*",
    "CARGO_REGISTRY_*",
    "RUSTUP_DIST_SERVER",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Variable that names the target directory.
pub(super) const TARGET_DIR: &str = "CARGO_TARGET_DIR";
