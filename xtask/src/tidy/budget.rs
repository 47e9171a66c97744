//! How long files and functions may be.

use super::Finding;
use super::source::Source;

const FILE_MEDIAN: usize = 150;
const FILE_P90: usize = 350;
const FILE_CAP: usize = 600;
const FUNCTION_P99: usize = 80;
const FUNCTION_CAP: usize = 100;

/// A production file or function and its lines.
#[derive(Debug)]
struct Measured {
    path: String,
    line: usize,
    name: String,
    length: usize,
}

/// All rules of this file. Tests do not count.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let (files, functions) = (files(sources), functions(sources));
    let mut findings: Vec<Finding> = files
        .iter()
        .filter(|file| file.length > FILE_CAP)
        .map(|file| finding(file, "file-length", format!("{} lines, the cap is {FILE_CAP}: split it", file.length)))
        .collect();
    findings.extend(functions.iter().filter(|function| function.length > FUNCTION_CAP).map(|function| {
        let advice = format!("`{}` has {} lines, the cap is {FUNCTION_CAP}: split it", function.name, function.length);
        finding(function, "function-length", advice)
    }));
    findings.extend(share(&files, "file-length", FILE_MEDIAN, 50, "files"));
    findings.extend(share(&files, "file-length", FILE_P90, 90, "files"));
    findings.extend(share(&functions, "function-length", FUNCTION_P99, 99, "functions"));
    findings
}

/// The figures themselves, for people.
pub(super) fn figures(sources: &[Source]) -> String {
    let (files, functions) = (files(sources), functions(sources));
    format!(
        "files: {}, median {}, p90 {}, longest {} lines; functions: {}, p99 {}, longest {} lines",
        files.len(),
        percentile(&files, 50),
        percentile(&files, 90),
        percentile(&files, 100),
        functions.len(),
        percentile(&functions, 99),
        percentile(&functions, 100)
    )
}

/// When a percentile is over its limit: the entry that sits there.
fn share(measured: &[Measured], rule: &'static str, limit: usize, percent: usize, what: &str) -> Option<Finding> {
    let length = percentile(measured, percent);
    let at = measured.iter().find(|entry| entry.length == length)?;
    (length > limit).then(|| {
        let over = measured.iter().filter(|entry| entry.length > limit).count();
        let advice =
            format!("p{percent} of all {what} is {length} lines, the budget is {limit}; {over} {what} are longer");
        finding(at, rule, advice)
    })
}

/// The smallest length that `percent` of the entries do not exceed.
fn percentile(measured: &[Measured], percent: usize) -> usize {
    let mut lengths: Vec<usize> = measured.iter().map(|entry| entry.length).collect();
    lengths.sort_unstable();
    let rank = (lengths.len() * percent).div_ceil(100);
    lengths.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn files(sources: &[Source]) -> Vec<Measured> {
    let production = sources.iter().filter(|source| !source.is_test);
    production
        .map(|source| Measured {
            path: source.path.clone(),
            line: 1,
            name: source.path.clone(),
            length: source.production_lines(),
        })
        .collect()
}

fn functions(sources: &[Source]) -> Vec<Measured> {
    let of = |source: &Source| -> Vec<Measured> {
        let production = source.functions.iter().filter(|function| !source.is_test_line(function.line));
        production
            .map(|function| Measured {
                path: source.path.clone(),
                line: function.line,
                name: function.name.clone(),
                length: function.length,
            })
            .collect()
    };
    sources.iter().flat_map(of).collect()
}

fn finding(entry: &Measured, rule: &'static str, advice: String) -> Finding {
    Finding::new(&entry.path, entry.line, rule, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, body: usize, tests: usize) -> Source {
        let text = format!(
            "fn a() {{\n{}}}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    b();\n".repeat(body),
            "    fn c() {}\n".repeat(tests)
        );
        Source::parse(path, &text).unwrap()
    }

    fn found(sources: &[Source]) -> Vec<(&'static str, String)> {
        check(sources).into_iter().map(|finding| (finding.rule, finding.advice)).collect()
    }

    #[test]
    fn tests_do_not_count() {
        assert_eq!(found(&[file("a/src/a.rs", 70, 900)]), []);
    }

    #[test]
    fn a_long_function_and_a_long_file_are_found() {
        let many: Vec<Source> = (0..200).map(|n| file(&format!("a/src/f{n}.rs"), 10, 0)).collect();
        let with = |long: Source| found(&many.iter().map(clone).chain([long]).collect::<Vec<_>>());
        let function = with(file("a/src/long.rs", 100, 0));
        assert!(function.len() == 1 && function[0].1.contains("`a` has 102 lines"), "{function:?}");
        let text = "fn a() {}\n".repeat(601);
        let long = with(Source::parse("a/src/long.rs", &text).unwrap());
        assert!(long.len() == 1 && long[0].1.contains("601 lines"), "{long:?}");
    }

    #[test]
    fn percentiles_over_their_budget_are_found() {
        let text = "fn a() {}\n".repeat(400);
        let sources: Vec<Source> = (0..4).map(|n| Source::parse(&format!("a/src/f{n}.rs"), &text).unwrap()).collect();
        let advice: Vec<String> = found(&sources).into_iter().map(|(_, advice)| advice).collect();
        assert!(advice.len() == 2 && advice[0].contains("p50") && advice[1].contains("p90"), "{advice:?}");
        let slow: Vec<Source> = (0..4).map(|n| file(&format!("a/src/f{n}.rs"), 90, 0)).collect();
        let advice = found(&slow);
        assert!(advice.len() == 1 && advice[0].1.contains("p99"), "{advice:?}");
    }

    fn clone(source: &Source) -> Source {
        Source::parse(&source.path, &(source.lines.join("\n") + "\n")).unwrap()
    }
}
