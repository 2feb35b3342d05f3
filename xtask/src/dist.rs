//! Packages the program: an archive with an install script, an npm package and a wheel.

mod archive;
mod check;
mod npm;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::MetadataCommand;

use crate::process::{cargo, host, output_of, root};
use crate::{Result, profiles};

/// Target of the packages if none is named. Its programs are static: they run on any distribution.
const DEFAULT_TARGET: &str = "x86_64-unknown-linux-musl";

/// Licenses and changes, which come with each program.
const TEXTS: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "CHANGELOG.md"];

/// Shells with the place of their completion script, in `share`.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/greenwave"),
    ("fish", "fish/vendor_completions.d/greenwave.fish"),
    ("zsh", "zsh/site-functions/_greenwave"),
];

/// Facts that all packages state.
struct Release {
    version: String,
    description: String,
    license: String,
    /// Directory of the finished packages.
    out: PathBuf,
    /// Time of the commit in seconds since 1970, which all packaged files get.
    timestamp: String,
}

/// The files of one target.
struct Build {
    target: String,
    /// Directory with `bin`, `share` and texts.
    tree: PathBuf,
}

impl Build {
    /// Returns the processor of the target, as Rust names it.
    fn processor(&self) -> &str {
        self.target.split('-').next().unwrap_or_default()
    }

    fn program(&self) -> PathBuf {
        self.tree.join("bin/greenwave")
    }
}

/// Builds and packages the program for some targets. `url` is the directory from which the install
/// script downloads the archives.
///
/// # Errors
/// If a build fails, for example because the target or its C compiler is not installed, or if a
/// program that packs is missing.
pub(crate) fn dist(targets: &[String], url: Option<&str>) -> Result<String> {
    let default = [DEFAULT_TARGET.to_owned()];
    let targets = if targets.is_empty() { &default } else { targets };
    let release = Release::read(root().join("target/packages"))?;
    let builds = targets.iter().map(|target| {
        let program = build(target)?;
        release.assemble(target, &program)
    });
    let builds = builds.collect::<Result<Vec<Build>>>()?;
    let packages = release.pack(&builds, url)?;
    Ok(format!("dist: {} in {}", packages.join(", "), release.out.display()))
}

/// Packages a debug build for this system, installs each package into a temporary directory without
/// a network, and runs it.
///
/// # Errors
/// If a package cannot be made or installed, or if its program does not run.
pub(crate) fn check() -> Result<String> {
    let program = runnable()?;
    let directory = tempfile::tempdir()?;
    let release = Release::read(directory.path().join("packages"))?;
    let build = release.assemble(&host()?, &program)?;
    release.pack(std::slice::from_ref(&build), None)?;
    let installed = check::install_each(&release, &build, directory.path())?;
    Ok(format!("dist: {} install the program offline", installed.join(", ")))
}

/// Builds a program for this system that prints its completions, without optimisation.
fn runnable() -> Result<PathBuf> {
    profiles::build_with(&["--features=completions"])
}

/// Builds the program for a target, optimised and with all features.
fn build(target: &str) -> Result<PathBuf> {
    let mut command = cargo(["build", "--profile=dist", "--package=greenwave-cli", "--all-features"]);
    command.args(["--locked", "--target", target]);
    let hint = format!(
        "`rustup target add {target}` installs the standard library; libraries in C need a compiler for the \
         target, which is in Debian's package musl-tools for {DEFAULT_TARGET}"
    );
    output_of(&mut command).map_err(|error| format!("{error}\nhint: {hint}"))?;
    Ok(root().join("target").join(target).join("dist/greenwave"))
}

impl Release {
    /// Reads the manifest of the program. Empties the directory `out`.
    fn read(out: PathBuf) -> Result<Self> {
        let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
        let mut packages = metadata.packages.into_iter();
        let package = packages.find(|package| package.name.as_str() == "greenwave-cli");
        let package = package.ok_or("the workspace has no package greenwave-cli")?;
        let timestamp =
            output_of(Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]))?;
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        fs::create_dir_all(&out)?;
        Ok(Self {
            version: package.version.to_string(),
            description: package.description.unwrap_or_default(),
            license: package.license.unwrap_or_default(),
            out,
            timestamp: timestamp.trim().to_owned(),
        })
    }

    /// Puts the program, its man pages, its completion scripts and texts into a directory.
    fn assemble(&self, target: &str, program: &Path) -> Result<Build> {
        let tree = self.out.join("trees").join(format!("greenwave-{}-{target}", self.version));
        let build = Build { target: target.to_owned(), tree };
        let share = build.tree.join("share");
        for directory in [build.tree.join("bin"), share.join("man/man1")] {
            fs::create_dir_all(directory)?;
        }
        fs::copy(program, build.program())?;
        output_of(Command::new("strip").arg(build.program()))?;
        for text in TEXTS {
            fs::copy(root().join("crates/greenwave-cli").join(text), build.tree.join(text))?;
        }
        fs::copy(root().join("README.md"), build.tree.join("README.md"))?;
        // The program of another processor does not run here, and its command line is the same.
        let native = if build.processor() == std::env::consts::ARCH { program } else { &runnable()? };
        output_of(Command::new(native).arg("man").arg(share.join("man/man1")))?;
        for (shell, place) in SHELLS {
            let script = output_of(Command::new(native).args(["completions", shell]))?;
            let place = share.join(place);
            fs::create_dir_all(place.parent().ok_or("a completion script is in a directory")?)?;
            fs::write(place, script)?;
        }
        Ok(build)
    }

    /// Makes all packages. Returns the names of their files.
    fn pack(&self, builds: &[Build], url: Option<&str>) -> Result<Vec<String>> {
        let mut packages = Vec::new();
        for build in builds {
            packages.push(archive::pack(self, build)?);
            packages.push(wheel::pack(self, build)?);
        }
        packages.extend(npm::pack(self, builds)?);
        packages.push(archive::write_install_script(self, builds, url)?);
        packages.sort();
        Ok(packages)
    }
}
