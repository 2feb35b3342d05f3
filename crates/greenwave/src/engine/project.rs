//! Captures the project, and creates the base of the working copies.

use greenwave_scheduler::Stopper;
use tokio::time::Instant;

use crate::base_build;
use crate::context::RunContext;
use crate::copies::CopyMethod;
use crate::error::{Error, chain};
use crate::event::Event;
use crate::git::{Tracked, UserRepository};
use crate::git_copies::GitBase;
use crate::git_filters::filters_off;
use crate::merge::MERGE_COPY;
use crate::plan::{BaseKind, FeatureId};
use crate::project_state;
use crate::resume::Resumed;
use crate::state::FeatureState;
use crate::submodules;
use crate::tree::{self, Tree};
use crate::workspace::{self, Captured, Workspace};

/// Number of characters of a path that a note shows.
const PATH_CHARS_MAX: usize = 300;

/// Captures the project of a run. A stopped run starts no further builds.
pub(super) struct ProjectCapture<'a> {
    pub(super) ctx: &'a RunContext,
    pub(super) stopper: Stopper,
}

impl ProjectCapture<'_> {
    /// Captures the project. In a git project, creates the base of the copies' repositories, with a
    /// working copy that merges can use. `new_features` is the number of features without results.
    pub(super) async fn capture(&self, new_features: usize) -> Result<(Tree, Option<Workspace>), Error> {
        let ctx = self.ctx;
        let root = &ctx.copies.root;
        let tracked = match &root.repository {
            Some(repository) => {
                let repository = repository.clone();
                ctx.blocking(move || repository.tracked()).await?
            }
            None => Tracked::default(),
        };
        let captured = workspace::capture(&root.path, &tracked.files, &ctx.store).await?;
        self.note_left_out(&captured).await;
        let mut tree = captured.tree;
        ctx.copies.set_originals(captured.originals);
        let is_overlay = matches!(ctx.copies.method(), CopyMethod::Overlay(_));
        let builds = if new_features < 2 { Vec::new() } else { self.builds(&tree).await? };
        let Some(repository) = root.repository.clone() else {
            if let Some(note) = root.note.clone() {
                ctx.emit(Event::Base { commit: None, uncommitted: 0, note: Some(note) }).await;
            }
            if is_overlay || !builds.is_empty() {
                self.share_base(None, &tree, &builds).await?;
            }
            return Ok((tree, None));
        };
        if ctx.plan.base == BaseKind::Head {
            tree = self.head_tree(&repository, &tree).await?;
        }
        let mut workspace = if is_overlay {
            Workspace::base(&ctx.copies, &ctx.project.in_flight)?
        } else {
            Workspace::in_copies(&ctx.copies, MERGE_COPY, &ctx.project.in_flight)?
        };
        let mtime = workspace.write_first(&tree, &ctx.store).await?;
        let (directory, copy, files) = (ctx.copies.shared_dir()?, workspace.dir().clone(), tree.clone());
        let base =
            workspace.blocking(move || GitBase::create(&repository, &directory, &copy, files, mtime)).await?;
        let work = self.submodule_work(tracked.submodules).await;
        let uncommitted = base.uncommitted + work.iter().map(|(_, files)| files).sum::<usize>();
        let commit = root.repository.as_ref().and_then(|repository| repository.head.clone());
        ctx.emit(Event::Base { commit, uncommitted, note: None }).await;
        self.note_submodules(&work).await;
        ctx.copies.set_git(base);
        if is_overlay {
            self.share_base(Some((workspace, mtime)), &tree, &builds).await?;
            return Ok((tree, None));
        }
        if !builds.is_empty() {
            self.share_base(None, &tree, &builds).await?;
        }
        Ok((tree, Some(workspace)))
    }

    /// Returns the submodules with uncommitted work, and the number of its files.
    async fn submodule_work(&self, submodules: Vec<(String, String)>) -> Vec<(String, usize)> {
        let top = self.ctx.copies.root.path.clone();
        self.ctx.blocking(move || submodules::uncommitted(&top, &submodules)).await
    }

    /// Says that uncommitted work in submodules is in the copies, where git does not show it.
    async fn note_submodules(&self, work: &[(String, usize)]) {
        if work.is_empty() {
            return;
        }
        let shown: Vec<String> =
            work.iter().map(|(path, files)| format!("`{}` ({files})", shortened(path))).collect();
        let message = format!(
            "uncommitted work in submodules is in the copies, where `git status` does not show it: {}",
            project_state::list(&shown)
        );
        let code = "submodule-work";
        self.ctx.emit(Event::Note { code, feature: None, message, hint: None }).await;
    }

    /// Says which files of the project are not in the copies.
    async fn note_left_out(&self, captured: &Captured) {
        let denied = "you have no permission to read them";
        let deep = "their paths are too long";
        let hint = "make them readable, or name them in .gitignore";
        let notes = [
            ("unreadable", &captured.denied, denied, Some(hint.to_owned())),
            ("too-deep", &captured.too_deep, deep, None),
        ];
        for (code, paths, reason, hint) in notes.into_iter().filter(|(_, paths, _, _)| !paths.is_empty()) {
            let shown: Vec<String> = paths.iter().map(|path| format!("`{}`", shortened(path))).collect();
            let message = format!("not in the copies, because {reason}: {}", project_state::list(&shown));
            self.ctx.emit(Event::Note { code, feature: None, message, hint }).await;
        }
    }

    /// Returns the commands that build what all working copies need.
    async fn builds(&self, tree: &Tree) -> Result<Vec<Vec<String>>, Error> {
        let ctx = self.ctx;
        let Some(lock) = base_build::lock_file(tree, &ctx.copies).and_then(|path| tree.get(path)) else {
            return Ok(Vec::new());
        };
        let lock = tree::content(&ctx.store, &lock.blob).await?;
        let tests = base_build::tests(&ctx.plan, &ctx.selected);
        Ok(base_build::commands(tests, &String::from_utf8_lossy(&lock)))
    }

    /// Builds the project in the directory that all working copies share, which is written first
    /// unless there is one. A build may fail: each copy builds the rest by itself.
    async fn share_base(
        &self,
        written: Option<(Workspace, i64)>,
        tree: &Tree,
        builds: &[Vec<String>],
    ) -> Result<(), Error> {
        let ctx = self.ctx;
        let (mut base, mtime) = match written {
            Some(written) => written,
            None => {
                let mut base = Workspace::base(&ctx.copies, &ctx.project.in_flight)?;
                let mtime = base.write_first(tree, &ctx.store).await?;
                (base, mtime)
            }
        };
        let (stopper, started) = (self.stopper.clone(), Instant::now());
        for command in builds {
            let built = tokio::select! {
                built = base.build(command) => built,
                () = stopper.stopped() => break,
            };
            let (shown, feature) = (command.join(" "), None);
            let seconds = started.elapsed().as_secs_f64();
            // Tests of features that do not exist yet often do not compile.
            let extent = if built.is_ok() { "" } else { " as far as possible" };
            if let Err(error) = built {
                tracing::debug!(error = chain(&error), "a build failed");
            }
            let message = format!("built once for all copies{extent}, in {seconds:.1} s: {shown}");
            let code = "built";
            ctx.emit(Event::Note { code, feature, message, hint: None }).await;
        }
        if !builds.is_empty() {
            // Only build output is new.
            base.reset(tree, &ctx.store).await?;
        }
        base.share(mtime)
    }

    /// Returns the files of the user's `HEAD`, with those of submodules as they are in `tree`.
    async fn head_tree(&self, repository: &UserRepository, tree: &Tree) -> Result<Tree, Error> {
        let ctx = self.ctx;
        let shared = ctx.copies.shared_dir()?;
        let path = shared.path().join("head");
        let directory = shared.create_subdirectory("head", 0o777).map_err(Error::io("create", &path))?;
        let (git, checkout) = (repository.clone(), path.clone());
        let checked_out = ctx.blocking(move || {
            let (files, converted) = (
                git.check_out_head(&checkout)?,
                git.converted("HEAD", &filters_off(&git.top)).unwrap_or_default(),
            );
            Ok::<_, Error>((files, converted, git.tracked()?.submodules))
        });
        let (files, converted, submodules) = checked_out.await?;
        let mut head = workspace::read_files(&directory, &files, &ctx.store).await?;
        // Files without uncommitted work are taken as filters have converted them.
        for path in converted.iter().filter_map(|path| std::str::from_utf8(path).ok()) {
            if let (Some(file), Some(now)) = (head.get_mut(path), tree.get(path)) {
                *file = *now;
            }
        }
        shared.remove_all("head").map_err(Error::io("remove", &path))?;
        for (submodule, _) in submodules {
            let below = format!("{submodule}/");
            let files = tree.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
            head.extend(files.map(|(path, file)| (path.clone(), *file)));
        }
        Ok(head)
    }

    /// Adds the results on the branch to the files that the run starts from, in the order in which
    /// they were merged: the changes of a result include lines of the results before it.
    pub(super) async fn add_results(&self, mut tree: Tree, resumed: &[Resumed]) -> Result<Tree, Error> {
        let Some(branch) = &self.ctx.branch else { return Ok(tree) };
        let record_of = |id: FeatureId| match &resumed[id.index()].state {
            FeatureState::Waiting { record } => record.as_ref(),
            _ => None,
        };
        let mut records: Vec<_> =
            self.ctx.dependencies.in_order().iter().filter_map(|&id| record_of(id)).collect();
        let results = branch.clone();
        let commits = self.ctx.blocking(move || results.commits()).await?;
        records
            .sort_by_key(|record| commits.iter().position(|commit| Some(commit) == record.commit.as_ref()));
        for record in records {
            match tree::join(&tree, &record.merged, &self.ctx.store).await? {
                Ok(changes) => tree::apply(&mut tree, &changes),
                // The feature's tests decide.
                Err(conflict) => {
                    tracing::warn!(path = conflict.path, "a result conflicts with later changes");
                }
            }
        }
        Ok(tree)
    }
}

/// Returns a path, or its beginning if it is long, with control characters escaped.
fn shortened(path: &str) -> String {
    let escaped = path.escape_debug().to_string();
    match escaped.char_indices().nth(PATH_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &escaped[..end]),
        None => escaped,
    }
}
