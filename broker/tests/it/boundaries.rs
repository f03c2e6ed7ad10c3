//! Who may import what, and how long a file may be: the rules of `ARCHITECTURE.md`, read from the code.

use std::path::{Path, PathBuf};

/// What stands at the beginning of a path in the code.
const AWS: &[&str] = &["aws_"];
const KUBE: &[&str] = &["kube", "k8s_openapi"];
const WIRE: &[&str] = &["tonic", "tonic_types", "podbroker_proto", "prost", "prost_types"];

/// A part of the crate, without those in it that have a rule of their own; the crates that it may not use, and the parts.
struct Rule {
    part: &'static str,
    crates: &'static [&'static [&'static str]],
    parts: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        part: "execution",
        crates: &[AWS, KUBE, WIRE, &["tokio", "tokio_util", "tokio_stream", "futures", "axum", "hyper"]],
        parts: &["api", "auth", "backend", "config", "error", "identity", "server", "target", "telemetry"],
    },
    Rule {
        part: "error",
        crates: &[AWS, KUBE, WIRE, &["tokio", "tokio_util", "tokio_stream", "futures", "axum", "hyper"]],
        parts: &["api", "auth", "backend", "config", "identity", "server", "target", "telemetry"],
    },
    Rule {
        part: "auth",
        crates: &[AWS, KUBE, WIRE],
        parts: &["api", "backend", "config", "identity", "server", "target", "telemetry"],
    },
    // The store's credentials come from `identity`; it serves any backend and knows none.
    Rule {
        part: "archive",
        crates: &[AWS, KUBE, WIRE],
        parts: &["api", "auth", "backend::batch", "backend::pod", "config", "identity", "server", "target"],
    },
    Rule { part: "target", crates: &[AWS, KUBE, WIRE], parts: &["api", "config", "identity", "server", "telemetry"] },
    Rule {
        part: "identity",
        crates: &[WIRE],
        parts: &["api", "auth", "backend", "config", "execution", "server", "target", "telemetry"],
    },
    Rule {
        part: "backend",
        crates: &[AWS, WIRE],
        parts: &["api", "archive", "auth", "backend::batch", "config", "server", "target", "telemetry"],
    },
    // It knows AWS Batch and no object of the cluster.
    Rule {
        part: "backend::batch",
        crates: &[KUBE, WIRE],
        parts: &["api", "archive", "auth", "backend::pod", "config", "server", "target"],
    },
    Rule {
        part: "api",
        crates: &[AWS, KUBE],
        parts: &["archive", "backend::batch", "backend::pod", "config", "identity", "server"],
    },
    Rule {
        part: "config",
        crates: &[AWS, KUBE, WIRE, &["tokio"]],
        parts: &["api", "backend", "identity", "server", "telemetry"],
    },
    Rule { part: "telemetry", crates: &[AWS, KUBE, WIRE], parts: &["api", "config", "identity", "server"] },
    // A client like any other: all it knows comes through the contract.
    Rule {
        part: "cli",
        crates: &[AWS, KUBE, &["tonic", "podbroker_proto"], &["podbroker"]],
        parts: &["api", "auth", "backend", "config", "error", "execution", "identity", "server", "target", "telemetry"],
    },
];

/// Whoever reads a file should see all of it.
const MAX_LINES: usize = 400;

fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    files
}

/// Tests may use what they like, and are not counted.
fn is_tests(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    stem == "tests" || stem.ends_with("_tests") || path.parent().is_some_and(|folder| folder.ends_with("tests"))
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// The paths that the code mentions, in `use` lines and elsewhere, with what stands between their braces spelled out.
fn paths(text: &str) -> Vec<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = code[..at].rsplit(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next().unwrap();
        let after = &code[at + 2..];
        let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match after.strip_prefix('{') {
            None => paths.push(format!("{before}::{}", name(after))),
            Some(group) => {
                let group = group.split(';').next().unwrap();
                let items = group.split([',', '{', '}']).map(|item| name(item.trim()));
                paths.extend(items.map(|item| format!("{before}::{item}")));
            }
        }
    }
    paths
}

fn mentions(path: &str, what: &str) -> bool {
    path.strip_prefix(what).is_some_and(|rest| what.ends_with('_') || rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn no_part_uses_what_it_may_not() {
    let mut wrong = Vec::new();
    let mut met = std::collections::BTreeSet::new();
    for (file, text) in files() {
        let module = file.with_extension("").to_str().unwrap().replace('/', "::");
        let rules = RULES.iter().filter(|rule| mentions(&module, rule.part));
        let Some(rule) = rules.max_by_key(|rule| rule.part.len()) else { continue };
        met.insert(rule.part);
        if is_tests(&file) {
            continue;
        }
        for path in paths(without_tests(&text)) {
            let by_crate = rule.crates.iter().copied().flatten().any(|name| mentions(&path, name));
            let by_part = rule.parts.iter().any(|name| mentions(&path, &format!("crate::{name}")));
            if by_crate || by_part {
                wrong.push(format!("{}: {path}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(met.len(), RULES.len(), "a part of the table is gone: {met:?}");
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let text = "use crate::backend::{Backend, pod::PodBackend};\nlet x = kube::Client::new();\n// tonic::Code\nuse aws_sdk_sts::Client;";
    let found = paths(text);
    assert!(found.iter().any(|path| mentions(path, "crate::backend::pod")), "{found:?}");
    assert!(found.iter().any(|path| mentions(path, "kube")));
    assert!(found.iter().any(|path| mentions(path, "aws_")));
    assert!(!found.iter().any(|path| mentions(path, "tonic")));
}

#[test]
fn no_file_is_longer_than_a_reader_can_bear() {
    let long: Vec<_> = files()
        .into_iter()
        .filter(|(file, _)| !is_tests(file))
        .map(|(file, text)| (file, without_tests(&text).lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "split along a noun: {long:?}");
}

#[test]
fn every_module_says_what_it_is_for() {
    let is_silent = |(file, text): &(PathBuf, String)| !is_tests(file) && !text.starts_with("//! ");
    let silent: Vec<_> = files().into_iter().filter(is_silent).map(|(file, _)| file).collect();
    assert!(silent.is_empty(), "{silent:?}");
}
