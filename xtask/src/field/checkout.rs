//! Brings a public project from its registry into `target/field`, and prepares it for its tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::list::{Project, Registry, Runner};
use crate::Result;
use crate::process::{output_of, root};

/// A project that is ready to run.
#[derive(Debug, Clone)]
pub(super) struct Checkout {
    /// Directory of everything that belongs to this project.
    pub(super) home: PathBuf,
    /// The project's sources.
    pub(super) directory: PathBuf,
}

/// Patterns that git ignores in a checkout: files that installing and building the project writes.
const IGNORED: &str = ".venv/\nnode_modules/\ntarget/\nbuild/\n*.egg-info/\n";
/// Present in `home` once the project is prepared. Contains the entry of the list.
const READY: &str = "ready";

/// Returns the directory of all checkouts and of the state of the runs.
pub(super) fn base() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root().join(target).join("field"),
        None => root().join("target/field"),
    }
}

impl Checkout {
    /// Fetches and prepares a project, unless that has been done with the same entry of the list.
    ///
    /// # Errors
    /// If a client of a registry or a build fails.
    pub(super) fn prepare(project: &Project) -> Result<Self> {
        let home = base().join(&project.name);
        // Some tests of Go expect their sources in a directory with the path of their module.
        let mut directory = home.join("project");
        directory.extend(&project.module);
        let checkout = Self { directory, home };
        let entry = format!("{project:?}");
        let is_ready = fs::read_to_string(checkout.home.join(READY)).is_ok_and(|ready| ready == entry);
        if is_ready && checkout.directory.is_dir() {
            checkout.ignore_environment()?;
            return Ok(checkout);
        }
        let _ = fs::remove_dir_all(&checkout.home);
        fs::create_dir_all(&checkout.home)?;
        checkout.fetch(project)?;
        checkout.init_repository()?;
        checkout.install(project)?;
        checkout.ignore_environment()?;
        fs::write(checkout.home.join(READY), entry)?;
        Ok(checkout)
    }

    fn fetch(&self, project: &Project) -> Result<()> {
        let Project { name, version, .. } = project;
        let downloads = self.home.join("downloads");
        fs::create_dir_all(&downloads)?;
        let found = match project.source {
            Registry::Pypi => {
                let arguments = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"];
                let package = format!("{name}=={version}");
                output_of(in_directory("python3", &downloads).args(arguments).arg(package))?;
                unpack(&downloads, ".tar.gz", &self.home)?
            }
            Registry::Npm => {
                let package = format!("{name}@{version}");
                output_of(in_directory("npm", &downloads).args(["pack", "--silent", &package]))?;
                unpack(&downloads, ".tgz", &self.home)?
            }
            Registry::Crates => {
                self.fetch_crate(name, version)?;
                return Ok(());
            }
            Registry::Debian => self.fetch_debian(name, version)?,
        };
        if let Some(above) = self.directory.parent() {
            fs::create_dir_all(above)?;
        }
        fs::rename(found, &self.directory)?;
        Ok(())
    }

    /// Copies a crate from cargo's registry cache, which a scratch package fills.
    fn fetch_crate(&self, name: &str, version: &str) -> Result<()> {
        let scratch = self.home.join("scratch");
        fs::create_dir_all(scratch.join("src"))?;
        fs::write(scratch.join("src/lib.rs"), "")?;
        let manifest = format!(
            "[package]\nname = \"scratch\"\nedition = \"2021\"\n[dependencies]\n\"{name}\" = \"={version}\"\n[workspace]\n"
        );
        fs::write(scratch.join("Cargo.toml"), manifest)?;
        let metadata = output_of(in_directory("cargo", &scratch).args(["metadata", "--format-version=1"]))?;
        let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
        let packages = metadata["packages"].as_array().ok_or("`cargo metadata` lists no packages")?;
        let package = packages.iter().find(|it| it["name"] == name && it["version"] == version);
        let manifest =
            package.and_then(|it| it["manifest_path"].as_str()).ok_or("the crate was not fetched")?;
        let source = Path::new(manifest).parent().ok_or("the crate has no directory")?;
        output_of(Command::new("cp").arg("-r").args([source, &self.directory]))?;
        // Members of no workspace, although the directory is inside of one.
        let manifest = self.directory.join("Cargo.toml");
        let text = fs::read_to_string(&manifest)?;
        if !text.contains("[workspace]") {
            fs::write(&manifest, format!("{text}\n[workspace]\n"))?;
        }
        Ok(())
    }

    /// Fetches a source package by separate package lists, since a machine's often have programs
    /// only.
    fn fetch_debian(&self, name: &str, version: &str) -> Result<PathBuf> {
        let options = source_lists()?;
        let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
        let downloads = self.home.join("downloads");
        let package = format!("{name}={version}");
        let mut command = in_directory("apt-get", &downloads);
        output_of(command.args(&options).args(["-qq", "source", "--download-only", &package]))?;
        let tree = self.home.join("tree");
        let description = file_in(&downloads, ".dsc")?;
        output_of(Command::new("dpkg-source").args(["--no-check", "--extract"]).args([&description, &tree]))?;
        Ok(tree)
    }

    /// Makes the project a git repository, as it is where people work on it.
    fn init_repository(&self) -> Result<()> {
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=field", "-c", "user.email=field@localhost"];
            output_of(in_directory("git", &self.directory).args(identity).args(arguments))
        };
        git(&["init", "--quiet"])?;
        fs::write(self.directory.join(".git/info/exclude"), IGNORED)?;
        git(&["add", "--all"])?;
        git(&["commit", "--quiet", "--message=Import"])?;
        Ok(())
    }

    /// Has a virtual environment ignore itself, as the module `venv` does since Python 3.13.
    fn ignore_environment(&self) -> Result<()> {
        let environment = self.directory.join(".venv");
        if environment.is_dir() {
            fs::write(environment.join(".gitignore"), "*\n")?;
        }
        Ok(())
    }

    fn install(&self, project: &Project) -> Result<()> {
        let run = |program: &str, arguments: &[&str]| {
            output_of(in_directory(program, &self.directory).args(arguments)).map(drop)
        };
        match project.runner {
            Runner::Pytest => {
                run("python3", &["-m", "venv", ".venv"])?;
                let python = self.directory.join(".venv/bin/python");
                let mut pip = in_directory(&python.to_string_lossy(), &self.directory);
                pip.args(["-m", "pip", "install", "--quiet", "-e", "."]).args(&project.packages);
                // The imported repository has no tags from which a version could be derived.
                pip.env("SETUPTOOLS_SCM_PRETEND_VERSION", &project.version);
                output_of(&mut pip).map(drop)
            }
            Runner::Npm => {
                run("npm", &["install", "--no-audit", "--no-fund", "--silent", "--no-package-lock"])
            }
            Runner::Go => {
                let has_manifest = self.directory.join("go.mod").exists();
                if let Some(module) = project.module.as_ref().filter(|_| !has_manifest) {
                    run("go", &["mod", "init", module])?;
                }
                run("go", &["test", "-run=^$", "./..."])
            }
            Runner::Cargo => run("cargo", &["test", "--quiet", "--no-run"]),
            Runner::Ctest => {
                run("cmake", &["-S", ".", "-B", "build", "-DCMAKE_BUILD_TYPE=Debug"])?;
                run("cmake", &["--build", "build", "--parallel", "2"])?;
                fs::write(self.directory.join("greenwave.toml"), CTEST)?;
                Ok(())
            }
        }
    }
}

/// Returns options with which `apt-get` reads lists of source packages, which it downloads once:
/// those of the machine often have programs only.
fn source_lists() -> Result<[String; 4]> {
    let apt = base().join("apt");
    let (parts, lists) = (apt.join("sources.list.d"), apt.join("lists"));
    let options = [
        "Dir::Etc::sourcelist=/dev/null".to_owned(),
        format!("Dir::Etc::sourceparts={}", parts.display()),
        format!("Dir::State::lists={}", lists.display()),
        "APT::Sandbox::User=root".to_owned(),
    ];
    if apt.join(READY).exists() {
        return Ok(options);
    }
    fs::create_dir_all(&parts)?;
    fs::create_dir_all(lists.join("partial"))?;
    if let Ok(text) = fs::read_to_string("/etc/apt/sources.list.d/debian.sources") {
        fs::write(parts.join("debian.sources"), text.replace("Types: deb\n", "Types: deb-src\n"))?;
    }
    if let Ok(text) = fs::read_to_string("/etc/apt/sources.list") {
        let lines = text.lines().filter_map(|line| Some(format!("deb-src {}\n", line.strip_prefix("deb ")?)));
        fs::write(parts.join("debian.list"), lines.collect::<String>())?;
    }
    let words = options.iter().flat_map(|option| ["-o", option]);
    output_of(Command::new("apt-get").args(words).args(["-qq", "update"]))?;
    fs::write(apt.join(READY), "")?;
    Ok(options)
}

/// Packages that `docs/junit.md` recommends for ctest.
const CTEST: &str = r#"[[test]]
name = "ctest"
harness = "junit"
command = ["ctest", "--test-dir", "build", "--output-junit", "{report}"]
outputs = ["build/Testing/"]
"#;

/// Returns a command without input, and without cargo's variables of this process.
pub(super) fn in_directory(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).stdin(Stdio::null());
    let is_cargo = |name: &str| {
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") || name == "CARGO_TARGET_DIR"
    };
    for (name, _) in std::env::vars().filter(|(name, _)| is_cargo(name) || name == "CARGO") {
        command.env_remove(name);
    }
    command
}

/// Unpacks the only archive in a directory, and returns the directory that it contains.
fn unpack(downloads: &Path, suffix: &str, home: &Path) -> Result<PathBuf> {
    let archive = file_in(downloads, suffix)?;
    let tree = home.join("tree");
    fs::create_dir_all(&tree)?;
    output_of(
        Command::new("tar")
            .args(["--extract", "--no-same-owner", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(&tree),
    )?;
    let first = fs::read_dir(&tree)?.next().ok_or("the archive is empty")??;
    Ok(first.path())
}

fn file_in(directory: &Path, suffix: &str) -> Result<PathBuf> {
    let paths = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let found = paths.into_iter().find(|path| path.to_string_lossy().ends_with(suffix));
    found.ok_or_else(|| format!("no file ends with `{suffix}` in {}", directory.display()).into())
}
