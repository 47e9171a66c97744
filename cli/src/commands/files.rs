//! Policy files: which ones, and what is in them.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;
use ringfence_policy::{
    compat::Compat,
    diagnostic::Diagnostic,
    name::Name,
    object::{CidrGroup, Object, not_enforceable, parse_documents},
};

use crate::output::note;

/// A file is read only up to this size: policies are small, and a wrong path may name anything.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What files hold, each object once.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The policies, by key.
    pub(crate) objects: Vec<Object>,
    /// The CIDR groups, by name.
    pub(crate) groups: Vec<CidrGroup>,
}

/// Reads every file and parses every document in it. All findings go to standard error as `file:line:column: …`.
///
/// # Errors
/// If a file cannot be read, an object is wrong or given twice, or there is no object at all.
pub(crate) fn load(paths: &[PathBuf]) -> anyhow::Result<Loaded> {
    load_checked(paths, |_| Vec::new())
}

/// As `load`, for objects that are to come into force: what nodes cannot enforce yet is an error.
///
/// # Errors
/// As `load`.
pub(crate) fn load_enforceable(paths: &[PathBuf]) -> anyhow::Result<Loaded> {
    load_checked(paths, not_enforceable)
}

fn load_checked(paths: &[PathBuf], check: impl Fn(&Object) -> Vec<Diagnostic>) -> anyhow::Result<Loaded> {
    let mut objects: BTreeMap<_, (String, Object)> = BTreeMap::new();
    let mut groups: BTreeMap<Name, (String, CidrGroup)> = BTreeMap::new();
    let mut errors = 0;
    for path in expand(paths)? {
        let name = display_name(&path);
        let mut parsed = parse_documents(&read(&path)?, Compat::Ringfence);
        parsed.diagnostics.extend(parsed.objects.iter().flat_map(&check));
        parsed.diagnostics.sort();
        for diagnostic in &parsed.diagnostics {
            note(&format!("{name}:{diagnostic}"));
        }
        errors += parsed.diagnostics.iter().filter(|diagnostic| Diagnostic::is_error(diagnostic)).count();
        for object in parsed.objects {
            if let Some((first, _)) = objects.get(&object.key) {
                note(&format!("{name}:{}: error: {} is also in {first}", object.position, object.key));
                errors += 1;
            }
            objects.insert(object.key.clone(), (name.clone(), object));
        }
        for group in parsed.groups {
            if let Some((first, _)) = groups.get(&group.name) {
                note(&format!("{name}:{}: error: CiliumCIDRGroup {} is also in {first}", group.position, group.name));
                errors += 1;
            }
            groups.insert(group.name.clone(), (name.clone(), group));
        }
    }
    anyhow::ensure!(errors == 0, "{errors} finding{} above; nothing was sent", if errors == 1 { "" } else { "s" });
    anyhow::ensure!(!objects.is_empty() || !groups.is_empty(), "no policy object found in the files given");
    Ok(Loaded {
        objects: objects.into_values().map(|(_, object)| object).collect(),
        groups: groups.into_values().map(|(_, group)| group).collect(),
    })
}

/// A file's name in messages.
pub(crate) fn display_name(path: &Path) -> String {
    if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() }
}

/// Directories stand for the policy files in them, in name order.
pub(crate) fn expand(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries =
            std::fs::read_dir(path).with_context(|| format!("cannot read the directory {}", path.display()))?;
        let mut found: Vec<PathBuf> =
            entries.collect::<Result<Vec<_>, _>>()?.iter().map(|entry| entry.path()).collect();
        found.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json"));
        found.sort();
        anyhow::ensure!(!found.is_empty(), "{} holds no .yaml, .yml or .json file", path.display());
        files.extend(found);
    }
    Ok(files)
}

/// The text of a file, or of standard input.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let context = || format!("cannot read {}", path.display());
    let reader: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(context)?)
    };
    let mut text = String::new();
    reader.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).with_context(context)?;
    anyhow::ensure!(text.len() as u64 <= MAX_FILE_BYTES, "{} is larger than 16 MiB", path.display());
    Ok(text)
}
