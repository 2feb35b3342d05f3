//! Installs each package without a network, and runs the installed program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Build, Release, SHELLS, archive, npm};
use crate::Result;
use crate::process::{output_of, shown};

/// Installs every package below a directory. Returns the names of the installers.
pub(super) fn install_each(release: &Release, build: &Build, directory: &Path) -> Result<Vec<&'static str>> {
    let prefix = install_by_script(release, directory)?;
    expect_version(release, &Command::new(prefix.join("bin/greenwave")))?;
    check_files(&prefix.join("share"))?;
    refuse_other_archive(release, build, directory)?;
    expect_version(release, &install_from_npm(release, build, directory)?)?;
    expect_version(release, &install_wheel(release, directory)?)?;
    Ok(vec!["the script", "npm", "pip"])
}

/// Runs the install script on the directory of the packages. Returns the prefix.
fn install_by_script(release: &Release, directory: &Path) -> Result<PathBuf> {
    let prefix = directory.join("prefix");
    let printed = output_of(&mut script(release, &release.out, &prefix))?;
    if !printed.contains("hint: add") {
        return Err(format!("the script does not say that PATH lacks its directory:\n{printed}").into());
    }
    Ok(prefix)
}

fn script(release: &Release, archives: &Path, prefix: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg(release.out.join(archive::SCRIPT_NAME));
    command.env("GREENWAVE_URL", format!("file://{}", archives.display())).env("GREENWAVE_PREFIX", prefix);
    command
}

/// Checks that an archive with another content is refused, and that nothing of it is installed.
fn refuse_other_archive(release: &Release, build: &Build, directory: &Path) -> Result<()> {
    let (other, prefix) = (directory.join("other"), directory.join("refused"));
    fs::create_dir(&other)?;
    let name = archive::name(release, &build.target);
    let mut content = fs::read(release.out.join(&name))?;
    *content.last_mut().ok_or("the archive is empty")? ^= 1;
    fs::write(other.join(name), content)?;
    let finished = script(release, &other, &prefix).output()?;
    let errors = String::from_utf8_lossy(&finished.stderr);
    if finished.status.success() || !errors.contains("instead of") || prefix.exists() {
        return Err(format!("the script installed an archive with another SHA-256:\n{errors}").into());
    }
    Ok(())
}

/// Checks the man pages and the completion scripts.
fn check_files(share: &Path) -> Result<()> {
    for page in ["greenwave.1", "greenwave-test.1", "greenwave-run.1", "greenwave-cache-stats.1"] {
        let text = fs::read_to_string(share.join("man/man1").join(page))?;
        if !text.contains(".SH NAME") || !text.contains(".SH SYNOPSIS") {
            return Err(format!("{page} is no man page").into());
        }
    }
    for (shell, place) in SHELLS {
        let script = share.join(place);
        if !fs::read_to_string(&script)?.contains("greenwave") {
            return Err(format!("{} is no completion script", script.display()).into());
        }
        if shell == "bash" {
            output_of(Command::new("bash").arg("-n").arg(script))?;
        }
    }
    Ok(())
}

/// Installs the packages of npm from their files. Returns a command that runs the program as a user
/// of npm does.
fn install_from_npm(release: &Release, build: &Build, directory: &Path) -> Result<Command> {
    let project = directory.join("npm");
    fs::create_dir(&project)?;
    fs::write(project.join("package.json"), "{}")?;
    let npm = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(&project).env("npm_config_cache", directory.join("npm-cache"));
        command.env("npm_config_offline", "true").env("npm_config_update_notifier", "false");
        command
    };
    // The package with the program is an optional dependency of the other, and is installed first.
    let files = [npm::package_name(build), "greenwave".to_owned()].map(|name| npm::file_name(release, &name));
    let mut install = npm("npm");
    install.args(["install", "--silent", "--no-audit", "--no-fund"]);
    output_of(install.args(files.map(|file| release.out.join(file))))?;
    let mut run = npm("npx");
    run.args(["--no-install", "greenwave"]);
    Ok(run)
}

/// Installs the wheel into a virtual environment.
fn install_wheel(release: &Release, directory: &Path) -> Result<Command> {
    let environment = directory.join("venv");
    output_of(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let mut install = Command::new(environment.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "--no-index", "--find-links"]);
    output_of(install.arg(&release.out).arg("greenwave"))?;
    Ok(Command::new(environment.join("bin/greenwave")))
}

/// Runs a program, which must print its version, and fail on an unknown command with exit code 2.
fn expect_version(release: &Release, command: &Command) -> Result<()> {
    let with = |argument: &str| {
        let mut with = Command::new(command.get_program());
        with.args(command.get_args()).arg(argument);
        with.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
        with.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        with
    };
    let printed = output_of(&mut with("--version"))?;
    if printed.trim() != format!("greenwave {}", release.version) {
        return Err(format!("{} printed {printed}", shown(command)).into());
    }
    let status = with("no-such-command").output()?.status;
    if status.code() != Some(2) {
        return Err(format!("{} no-such-command: {status}", shown(command)).into());
    }
    Ok(())
}
