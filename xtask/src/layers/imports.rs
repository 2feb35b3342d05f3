//! Resolves the paths in a crate's source files (`use` declarations, expressions, types, macro
//! arguments) to the files that define the items.
//!
//! Not a compiler: methods, trait implementations and names that a macro generates are not
//! resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::Result;

/// The names of a module and its ancestors, from the crate's root.
pub(super) type ModulePath = Vec<String>;

/// A path in one file that leads to an item of another. Files are indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) from: usize,
    pub(super) line: usize,
    pub(super) item: String,
    pub(super) to: usize,
}

/// Re-exports are followed through at most this many modules.
const REEXPORTS_MAX: usize = 16;

/// Returns the module of a file, by its path below `src`.
pub(super) fn module_of(path: &Path) -> ModulePath {
    let mut module: ModulePath =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(module.last().map(String::as_str), Some("lib" | "main" | "mod")) {
        module.pop();
    }
    module
}

/// Resolves the paths of all files of a crate.
///
/// # Errors
/// If a file is not valid Rust.
pub(super) fn resolve(texts: &[(PathBuf, String)]) -> Result<Vec<Import>> {
    let mut scopes = Scopes::default();
    let mut mentions = Vec::new();
    for (file, (path, text)) in texts.iter().enumerate() {
        let syntax = syn::parse_file(text).map_err(|error| {
            format!("cannot parse {}:{}: {error}", path.display(), error.span().start().line)
        })?;
        let mut collector = Collector { file, module: module_of(path), scopes, mentions: Vec::new() };
        collector.scopes.enter(&collector.module, file);
        collector.visit_file(&syntax);
        scopes = collector.scopes;
        mentions.extend(collector.mentions);
    }
    let imports = mentions.iter().filter_map(|mention| {
        let (to, item) = scopes.resolve(&mention.module, &mention.path, 0)?;
        Some(Import { from: mention.file, line: mention.line, item, to })
    });
    Ok(imports.collect())
}

/// A path as a file writes it.
struct Mention {
    file: usize,
    line: usize,
    module: ModulePath,
    path: Vec<String>,
}

/// The modules of a crate, inline modules included.
#[derive(Default)]
struct Scopes {
    modules: BTreeMap<ModulePath, Scope>,
}

#[derive(Default)]
struct Scope {
    file: usize,
    /// Names that the module defines.
    items: BTreeSet<String>,
    /// Names that the module imports, with their paths.
    uses: BTreeMap<String, Vec<String>>,
    /// Modules whose names are all imported.
    globs: Vec<Vec<String>>,
}

impl Scopes {
    fn enter(&mut self, module: &ModulePath, file: usize) -> &mut Scope {
        let scope = self.modules.entry(module.clone()).or_default();
        scope.file = file;
        scope
    }

    /// Returns the file that defines an item and the item's path from the crate's root. `None` if
    /// the path leads to another crate, or to a name that `module` imports: the import itself
    /// counts.
    fn resolve(&self, module: &ModulePath, path: &[String], depth: usize) -> Option<(usize, String)> {
        let (mut at, mut rest) = self.start(module, path)?;
        while let Some((name, tail)) = rest.split_first() {
            let mut child = at.clone();
            child.push(name.clone());
            if !self.modules.contains_key(&child) {
                return self.resolve_item(&at, name, depth);
            }
            (at, rest) = (child, tail);
        }
        Some((self.modules.get(&at)?.file, at.join("::")))
    }

    /// Returns the module that a path starts in, and the rest of the path.
    fn start<'a>(&self, module: &ModulePath, path: &'a [String]) -> Option<(ModulePath, &'a [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut at = module.clone();
        match first.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => {
                at.pop()?;
            }
            child => {
                at.push(child.to_owned());
                return self.modules.contains_key(&at).then_some((at, rest));
            }
        }
        while let Some(("super", tail)) = rest.split_first().map(|(name, tail)| (name.as_str(), tail)) {
            at.pop()?;
            rest = tail;
        }
        Some((at, rest))
    }

    /// Finds an item of a module: its own, or one that it re-exports.
    fn resolve_item(&self, module: &ModulePath, name: &str, depth: usize) -> Option<(usize, String)> {
        let scope = self.modules.get(module)?;
        if depth < REEXPORTS_MAX && !scope.items.contains(name) {
            if let Some(path) = scope.uses.get(name) {
                return self.resolve(module, path, depth + 1);
            }
            let from_glob = |path: &Vec<String>| {
                let mut path = path.clone();
                path.push(name.to_owned());
                let (file, item) = self.resolve(module, &path, depth + 1)?;
                let source: ModulePath = item.split("::").map(str::to_owned).collect();
                let (_, parent) = source.split_last()?;
                let is_defined = self.modules.get(parent).is_some_and(|scope| scope.items.contains(name));
                is_defined.then_some((file, item))
            };
            if let Some(found) = scope.globs.iter().find_map(from_glob) {
                return Some(found);
            }
        }
        let mut item = module.clone();
        item.push(name.to_owned());
        Some((scope.file, item.join("::")))
    }
}

/// Collects the definitions and the paths of a file, test code left out.
struct Collector {
    file: usize,
    module: ModulePath,
    scopes: Scopes,
    mentions: Vec<Mention>,
}

impl Collector {
    fn mention(&mut self, line: usize, path: Vec<String>) {
        self.mentions.push(Mention { file: self.file, line, module: self.module.clone(), path });
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.enter(&self.module, self.file)
    }

    /// Adds the names of a `use` declaration.
    fn add_use(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_use(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Name(name) => self.add_name(&name.ident, None, prefix),
            syn::UseTree::Rename(rename) => self.add_name(&rename.ident, Some(&rename.rename), prefix),
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                self.mention(line, prefix.clone());
                self.scope().globs.push(prefix.clone());
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, prefix)),
        }
    }

    fn add_name(&mut self, name: &syn::Ident, alias: Option<&syn::Ident>, prefix: &[String]) {
        let mut path = prefix.to_vec();
        // `use a::{self}` imports `a`.
        if name != "self" || path.is_empty() {
            path.push(name.to_string());
        }
        let imported = alias.map(ToString::to_string).or_else(|| path.last().cloned());
        self.mention(name.span().start().line, path.clone());
        self.scope().uses.extend(imported.map(|imported| (imported, path)));
    }

    /// Finds paths among the arguments of a macro, which are not parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.scan(group.stream()),
                TokenTree::Ident(ident) if ident == "crate" || ident == "super" => {
                    let path = path_at(&tokens[at..]);
                    at += 3 * (path.len() - 1);
                    self.mention(ident.span().start().line, path);
                }
                _ => {}
            }
            at += 1;
        }
    }
}

/// Reads `a::b::c` from the beginning of a list of tokens. The first token is an identifier.
fn path_at(tokens: &[TokenTree]) -> Vec<String> {
    let mut path = vec![tokens[0].to_string()];
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':');
    for step in tokens[1..].chunks_exact(3) {
        match step {
            [a, b, TokenTree::Ident(name)] if is_colon(a) && is_colon(b) => path.push(name.to_string()),
            _ => break,
        }
    }
    path
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let is_cfg_test = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    };
    attributes.iter().any(is_cfg_test)
}

/// Returns the attributes of an item and its name, if it has one.
fn face(item: &syn::Item) -> (&[syn::Attribute], Option<&syn::Ident>) {
    match item {
        syn::Item::Const(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::Enum(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::Fn(it) => (&it.attrs, Some(&it.sig.ident)),
        syn::Item::Macro(it) => (&it.attrs, it.ident.as_ref()),
        syn::Item::Mod(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::Static(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::Struct(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::Trait(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::TraitAlias(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::Type(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::Union(it) => (&it.attrs, Some(&it.ident)),
        syn::Item::Impl(it) => (&it.attrs, None),
        syn::Item::Use(it) => (&it.attrs, None),
        _ => (&[], None),
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (attributes, name) = face(item);
        if is_test(attributes) {
            return;
        }
        self.scope().items.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let Some((_, items)) = &module.content else { return };
        self.module.push(module.ident.to_string());
        self.scope();
        items.iter().for_each(|item| self.visit_item(item));
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.add_use(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let line = path.segments[0].ident.span().start().line;
            self.mention(line, path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        visit::visit_macro(self, invocation);
        self.scan(invocation.tokens.clone());
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {
        // `pub(super)` and `pub(in crate::a)` import nothing.
    }
}
