//! Finds whose results on a server are read and written: those of the main branch, or of another.

use std::path::Path;
use std::process::{Command, Stdio};

use greenwave::RemoteScope;

use crate::config::Config;

/// Main branches of repositories that do not say which one it is.
const TRUNKS: [&str; 2] = ["main", "master"];

/// The state that is checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A branch of the repository, by its name.
    Branch(String),
    /// A pull request, whose branch may be the `main` of a fork, a tag, or a commit. Never the main
    /// branch. The name has a space, which names of branches cannot have.
    Other(String),
}

/// Decides the scope of results, unless a setting says it.
pub(crate) fn resolve(project: &Path, config: &mut Config) {
    let testing = &mut config.settings.testing;
    if testing.remote.is_empty() || testing.remote_scope != RemoteScope::Auto {
        return;
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (place, of_ci) = match of_ci(&variable) {
        Some((place, trunk)) => (place, trunk),
        None => match of_git(project) {
            Some(place) => (place, None),
            // Without version control there is one line of results.
            None => return testing.remote_scope = RemoteScope::Main,
        },
    };
    let chosen = Some(testing.trunk.clone()).filter(|name| !name.is_empty());
    let trunk = chosen.or(of_ci).or_else(|| trunk_of_git(project));
    testing.remote_scope = scope(place, trunk.as_deref());
}

fn scope(place: Place, trunk: Option<&str>) -> RemoteScope {
    match place {
        Place::Branch(name) if trunk.map_or(TRUNKS.contains(&&*name), |trunk| trunk == name) => {
            RemoteScope::Main
        }
        Place::Branch(name) | Place::Other(name) => RemoteScope::Branch(name),
    }
}

/// Returns the place that a CI service has checked out, and the main branch if the service names
/// it. `None` outside of these services.
fn of_ci(variable: &dyn Fn(&str) -> Option<String>) -> Option<(Place, Option<String>)> {
    let pull_request = |number: String| Place::Other(format!("pull request {number}"));
    let number = |name: &str| variable(name).filter(|value| value != "false").map(pull_request);
    let branch = |name: &str| variable(name).map(Place::Branch);
    let reference = |name: &str| variable(name).map(|value| of_reference(&value));
    let mut trunk = None;
    let place = if variable("GITHUB_ACTIONS").is_some() {
        // Set for pull requests only, also where the workflow is that of the main branch.
        match variable("GITHUB_HEAD_REF") {
            Some(head) => {
                let merge = reference("GITHUB_REF").filter(|place| matches!(place, Place::Other(_)));
                Some(merge.unwrap_or_else(|| pull_request(head)))
            }
            None => reference("GITHUB_REF"),
        }
    } else if variable("GITLAB_CI").is_some() {
        trunk = variable("CI_DEFAULT_BRANCH");
        let tag = || variable("CI_COMMIT_TAG").map(|tag| Place::Other(format!("tag {tag}")));
        number("CI_MERGE_REQUEST_IID").or_else(|| branch("CI_COMMIT_BRANCH")).or_else(tag)
    } else if variable("BUILDKITE").is_some() {
        trunk = variable("BUILDKITE_PIPELINE_DEFAULT_BRANCH");
        number("BUILDKITE_PULL_REQUEST").or_else(|| branch("BUILDKITE_BRANCH"))
    } else if variable("CIRCLECI").is_some() {
        number("CIRCLE_PR_NUMBER").or_else(|| branch("CIRCLE_BRANCH"))
    } else if variable("JENKINS_URL").is_some() {
        number("CHANGE_ID").or_else(|| branch("BRANCH_NAME"))
    } else if variable("TF_BUILD").is_some() {
        reference("BUILD_SOURCEBRANCH")
    } else if variable("TRAVIS").is_some() {
        number("TRAVIS_PULL_REQUEST").or_else(|| branch("TRAVIS_BRANCH"))
    } else if variable("BITBUCKET_BUILD_NUMBER").is_some() {
        number("BITBUCKET_PR_ID").or_else(|| branch("BITBUCKET_BRANCH"))
    } else {
        None
    };
    Some((place?, trunk))
}

/// Returns the place of a full name of git, such as `refs/heads/main` or `refs/pull/7/merge`.
fn of_reference(reference: &str) -> Place {
    if let Some(branch) = reference.strip_prefix("refs/heads/") {
        return Place::Branch(branch.to_owned());
    }
    if let Some(tag) = reference.strip_prefix("refs/tags/") {
        return Place::Other(format!("tag {tag}"));
    }
    let number = reference.strip_prefix("refs/pull/").and_then(|rest| rest.split('/').next());
    Place::Other(match number {
        Some(number) => format!("pull request {number}"),
        None => format!("reference {reference}"),
    })
}

/// Returns the place that is checked out in the project. `None` if it is in no repository.
fn of_git(project: &Path) -> Option<Place> {
    let project = std::path::absolute(project).unwrap_or_else(|_| project.to_owned());
    project.ancestors().find(|above| above.join(".git").symlink_metadata().is_ok())?;
    // A commit without a branch, or a repository that git refuses to read.
    let head = symbolic(&project, "HEAD").unwrap_or_else(|| "HEAD".to_owned());
    Some(of_reference(&head))
}

fn trunk_of_git(project: &Path) -> Option<String> {
    let head = symbolic(project, "refs/remotes/origin/HEAD")?;
    head.strip_prefix("refs/remotes/origin/").map(str::to_owned)
}

/// Returns the target of a symbolic name.
fn symbolic(project: &Path, name: &str) -> Option<String> {
    let mut command = Command::new("git");
    greenwave::isolate_git(&mut command);
    greenwave::restrict_git(&mut command, project);
    command.arg("-C").arg(project).args(["symbolic-ref", "--quiet", name]);
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_ci_services_say_what_is_checked_out() {
        let check = |variables: &str, trunk: Option<&str>, expected: &str| {
            let variable = |name: &str| {
                let mut all = variables.split(' ').filter_map(|one| one.split_once('='));
                all.find(|(other, _)| *other == name).map(|(_, value)| value.to_owned())
            };
            let found = of_ci(&variable).map(|(place, of_ci)| scope(place, trunk.or(of_ci.as_deref())));
            let shown = match found {
                Some(RemoteScope::Main) => "main".to_owned(),
                Some(RemoteScope::Branch(name)) => format!("branch:{name}"),
                _ => "unknown".to_owned(),
            };
            assert_eq!(shown, expected, "{variables}");
        };
        let github = |rest: &str| format!("GITHUB_ACTIONS=true {rest}");
        check(&github("GITHUB_REF=refs/heads/main"), None, "main");
        check(&github("GITHUB_REF=refs/heads/main"), Some("develop"), "branch:main");
        check(&github("GITHUB_REF=refs/heads/a/b"), None, "branch:a/b");
        check(&github("GITHUB_REF=refs/tags/main"), None, "branch:tag main");
        // The branch of a fork is called like the main branch.
        check(&github("GITHUB_HEAD_REF=main GITHUB_REF=refs/pull/7/merge"), None, "branch:pull request 7");
        check(&github("GITHUB_HEAD_REF=main GITHUB_REF=refs/heads/main"), None, "branch:pull request main");
        check("GITLAB_CI=true CI_COMMIT_BRANCH=trunk CI_DEFAULT_BRANCH=trunk", None, "main");
        check("GITLAB_CI=true CI_COMMIT_BRANCH=main CI_DEFAULT_BRANCH=trunk", None, "branch:main");
        check("GITLAB_CI=true CI_MERGE_REQUEST_IID=3 CI_DEFAULT_BRANCH=x", None, "branch:pull request 3");
        check("BUILDKITE=true BUILDKITE_PULL_REQUEST=false BUILDKITE_BRANCH=main", None, "main");
        check("BUILDKITE=true BUILDKITE_PULL_REQUEST=9 BUILDKITE_BRANCH=main", None, "branch:pull request 9");
        check("CIRCLECI=true CIRCLE_PR_NUMBER=4 CIRCLE_BRANCH=pull/4", None, "branch:pull request 4");
        check("JENKINS_URL=x BRANCH_NAME=master", None, "main");
        check("TF_BUILD=True BUILD_SOURCEBRANCH=refs/pull/5/merge", None, "branch:pull request 5");
        check("TRAVIS=true TRAVIS_PULL_REQUEST=6 TRAVIS_BRANCH=main", None, "branch:pull request 6");
        check("BITBUCKET_BUILD_NUMBER=1 BITBUCKET_BRANCH=main", None, "main");
        check("CI=true", None, "unknown");
        check(&github(""), None, "unknown");
    }
}
