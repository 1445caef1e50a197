//! Modules have no import cycles and no upward imports (docs/design.md §1.14, §3).
//!
//! The layers are the tables of docs/design.md §3.1, §3.2: a module imports only modules of rows above its own. Below
//! that, the children of one module may import each other in one direction only. A child and its parent belong
//! together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{File, files, root};

/// Imports that are still to be removed: package, importing module, imported module. The list only gets shorter: an
/// entry without such an import fails the test.
const UPWARD: &[(&str, &str, &str)] = &[];

/// Cycles between children of one module that are still to be removed: package, and the modules. The list only gets
/// shorter.
const CIRCLES: &[(&str, &[&str])] = &[];

type Path = Vec<String>;
/// The modules that each module imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The modules of a package, each with the paths that it imports, relative to the root of the package.
fn modules(package: &str) -> BTreeMap<Path, BTreeSet<Path>> {
    let prefix = format!("{package}/src/");
    let mut modules = BTreeMap::new();
    for File { path, text } in files(&["rs"]) {
        let Some(name) = path.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".rs")) else {
            continue;
        };
        let name: Path = name.trim_end_matches("/mod").split('/').map(String::from).collect();
        // Tests may import any module.
        let is_test = name.last().is_some_and(|last| last.ends_with("tests"));
        if is_test || matches!(name.as_slice(), [root] if root == "lib" || root == "main") {
            continue;
        }
        let imports = imports(&text, &name);
        modules.insert(name, imports);
    }
    assert!(modules.len() > 10, "{package} has no modules");
    modules
}

/// All paths that begin with `crate`, `super` or `self` in a module's code, relative to the root of the package.
fn imports(text: &str, module: &[String]) -> BTreeSet<Path> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(
        String::new(),
        |mut code, line| {
            code.push_str(line);
            code.push('\n');
            code
        },
    );
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = ["crate::", "super::", "self::"].iter().filter_map(|start| rest.find(start)).min() {
        let is_word =
            rest[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':'));
        let (paths, len) = tree(&rest[at..]);
        rest = &rest[at + len..];
        for path in paths.into_iter().filter(|_| !is_word) {
            let mut full: Path = module.to_vec();
            for (position, part) in path.into_iter().enumerate() {
                match part.as_str() {
                    "crate" => full.clear(),
                    // After `{` it means the path before the brace.
                    "self" => {}
                    "super" if position == 0 || full.len() < module.len() => {
                        full.pop();
                    }
                    _ => full.push(part),
                }
            }
            found.insert(full);
        }
    }
    found
}

/// The paths at the front of `text`, with braces resolved, and the length of what was read.
fn tree(text: &str) -> (Vec<Path>, usize) {
    let mut path = Path::new();
    let mut at = 0;
    loop {
        let word = text[at..].chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect::<String>();
        at += word.len();
        if !word.is_empty() {
            path.push(word);
        }
        let Some(behind) = text[at..].strip_prefix("::") else { return (vec![path], at.max(1)) };
        at += 2;
        let Some(list) = behind.strip_prefix('{') else { continue };
        at += 1;
        let mut paths = Vec::new();
        let mut item = list;
        loop {
            let trimmed = item.trim_start_matches(|it: char| it.is_whitespace() || it == ',');
            at += item.len() - trimmed.len();
            if trimmed.is_empty() || trimmed.starts_with('}') {
                return (paths, (at + 1).min(text.len()));
            }
            let (inner, len) = tree(trimmed);
            paths.extend(inner.into_iter().map(|inner| path.iter().cloned().chain(inner).collect()));
            // `as name` and `*` are ignored.
            let end = trimmed[len..].find([',', '}']).map_or(trimmed.len(), |end| len + end);
            at += end;
            item = &trimmed[end..];
        }
    }
}

/// The layer of each module of a package, from docs/design.md.
fn layers(package: &str) -> BTreeMap<String, usize> {
    let path = root().join("core/docs/design.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let heading = format!("The layers of {package}");
    let section =
        text.split("\n#").find(|section| section.lines().next().is_some_and(|it| it.ends_with(&heading)));
    let section = section.unwrap_or_else(|| panic!("no section '{heading}'"));
    let mut layers = BTreeMap::new();
    for (layer, row) in section.lines().filter(|line| line.starts_with("| `")).enumerate() {
        let cell = row.split('|').nth(1).unwrap_or_default();
        for module in cell.split('`').skip(1).step_by(2) {
            let old = layers.insert(module.to_owned(), layer);
            assert!(old.is_none(), "{module} of {package} has two layers");
        }
    }
    layers
}

/// The imports between the children of one module. Modules below a child count as the child.
fn between_children(modules: &BTreeMap<Path, BTreeSet<Path>>, parent: &[String]) -> Graph {
    let child = |path: &[String]| {
        path.strip_prefix(parent)
            .and_then(<[String]>::first)
            .filter(|child| modules.contains_key(&[parent, &[(*child).clone()]].concat()))
            .cloned()
    };
    let mut graph = Graph::new();
    for (module, imports) in modules {
        let Some(from) = child(module) else { continue };
        let to = imports.iter().filter_map(|import| child(import)).filter(|to| *to != from);
        graph.entry(from.clone()).or_default().extend(to.collect::<BTreeSet<_>>());
    }
    graph
}

/// The cycles of a graph: its strongly connected components of more than one module.
fn circles(graph: &Graph) -> BTreeSet<BTreeSet<String>> {
    let reachable = |from: &String| {
        let mut found = BTreeSet::new();
        let mut next = vec![from];
        while let Some(module) = next.pop() {
            for to in graph.get(module).into_iter().flatten() {
                if found.insert(to.clone()) {
                    next.push(to);
                }
            }
        }
        found
    };
    let from: BTreeMap<&String, BTreeSet<String>> = graph.keys().map(|it| (it, reachable(it))).collect();
    let circle = |of: &String| -> BTreeSet<String> {
        let back = |to: &&String| from.get(to).is_some_and(|it| it.contains(of));
        from.get(of).into_iter().flatten().filter(back).cloned().collect()
    };
    graph.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

#[test]
fn a_module_imports_only_lower_modules() {
    let mut wrong = BTreeSet::new();
    for package in ["core", "server"] {
        let (modules, layers) = (modules(package), layers(package));
        for (from, imports) in between_children(&modules, &[]) {
            let layer = layers.get(&from);
            let layer =
                layer.unwrap_or_else(|| panic!("{package}: {from} has no layer in core/docs/design.md"));
            for to in imports {
                if layers.get(&to).is_none_or(|below| below >= layer) {
                    wrong.insert((package, from.clone(), to));
                }
            }
        }
        for module in layers.keys() {
            assert!(modules.contains_key(&vec![module.clone()]), "{package} has no module {module}");
        }
    }
    let known = UPWARD.iter().map(|(package, from, to)| (*package, String::from(*from), String::from(*to)));
    assert_eq!(wrong, known.collect(), "upward imports (left) that are not those of the list (right)");
}

#[test]
fn modules_of_one_folder_have_no_import_cycles() {
    let mut found = BTreeSet::new();
    for package in ["core", "server"] {
        let modules = modules(package);
        let parents: BTreeSet<&[String]> = modules.keys().map(|it| &it[..it.len() - 1]).collect();
        for parent in parents.into_iter().filter(|parent| !parent.is_empty()) {
            let circles = circles(&between_children(&modules, parent));
            let named = |child: &String| format!("{}::{child}", parent.join("::"));
            found.extend(circles.iter().map(|it| (package, it.iter().map(named).collect::<Vec<_>>())));
        }
    }
    let known =
        CIRCLES.iter().map(|(package, it)| (*package, it.iter().map(|it| String::from(*it)).collect()));
    assert_eq!(found, known.collect(), "circles (left) that are not those of the list (right)");
}

#[test]
fn imports_are_found_in_every_form() {
    let module = ["a".to_owned(), "b".to_owned()];
    let text = "
        use crate::x::{self, y::Z as W, v::*};
        use super::{Parent, c::Sibling};
        pub use self::d::Child;
        // use crate::comment;
        fn f() -> crate::inline::Type { core::mem::take(super::e::it) }
        #[cfg(test)]\nmod tests {\n use crate::only_in_tests; }";
    let found: Vec<String> = imports(text, &module).iter().map(|path| path.join("::")).collect();
    let expected =
        ["a::Parent", "a::b::d::Child", "a::c::Sibling", "a::e::it", "inline::Type", "x", "x::v", "x::y::Z"];
    assert_eq!(found, expected);
}

#[test]
fn cycles_are_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry((*from).into()).or_default().insert((*to).into());
        }
        graph
    };
    assert!(circles(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let circle = BTreeSet::from(["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    assert_eq!(circles(&graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")])), BTreeSet::from([circle]));
}
