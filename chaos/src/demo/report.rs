//! Expectations, figures and progress: what the demo prints, and whether it succeeded.

use std::time::{Duration, Instant};

/// Collects what was expected and what was seen; prints each expectation as it is decided.
#[derive(Debug)]
pub struct Report {
    begin: Instant,
    held: usize,
    broken: Vec<String>,
    figures: Vec<(String, String)>,
    step: &'static str,
}

impl Report {
    /// An empty report; the clock starts.
    #[must_use]
    pub fn new() -> Self {
        Self { begin: Instant::now(), held: 0, broken: Vec::new(), figures: Vec::new(), step: "" }
    }

    /// Begins a step.
    pub fn step(&mut self, title: &'static str) {
        self.step = title;
        println!("\n[{:6.1} s] {title}", self.begin.elapsed().as_secs_f64());
    }

    /// Says what happens now.
    pub fn say(&self, text: &str) {
        println!("[{:6.1} s]   {text}", self.begin.elapsed().as_secs_f64());
    }

    /// Decides an expectation: `seen` is shown when it did not hold.
    pub fn expect(&mut self, what: &str, held: bool, seen: &str) {
        if held {
            self.held += 1;
            self.say(&format!("✓ {what}"));
        } else {
            self.broken.push(format!("{}: expected: {what}; seen: {seen}", self.step));
            self.say(&format!("✗ {what}\n             seen: {seen}"));
        }
    }

    /// Notes a figure for the summary.
    pub fn figure(&mut self, name: &str, value: String) {
        self.figures.push((name.to_owned(), value));
    }

    /// Notes a time for the summary.
    pub fn time(&mut self, name: &str, value: Duration) {
        self.figure(name, format!("{:.2} s", value.as_secs_f64()));
    }

    /// Whether every expectation held, and at least one was decided.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.broken.is_empty() && self.held > 0
    }

    /// The summary, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let width = self.figures.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = String::from("\nSummary\n");
        for (name, value) in &self.figures {
            let padding = " ".repeat(width - name.chars().count());
            text.push_str(&format!("  {name}{padding}  {value}\n"));
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        if self.is_success() {
            text.push_str(&format!("\nPASSED: all {} expectations held, in {seconds:.1} s\n", self.held));
        } else {
            let decided = self.held + self.broken.len();
            text.push_str(&format!("\nFAILED: {} of {decided} expectations did not hold:\n", self.broken.len()));
            for line in &self.broken {
                text.push_str(&format!("  - {line}\n"));
            }
        }
        text
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_expectation_fails_the_run_and_is_listed() {
        let mut report = Report::new();
        assert!(!report.is_success(), "a run that decided nothing is no success");
        report.step("Step");
        report.expect("water is wet", true, "");
        assert!(report.is_success());
        report.expect("fire is cold", false, "burnt fingers");
        assert!(!report.is_success());
        let summary = report.summary();
        assert!(summary.contains("1 of 2") && summary.contains("Step: expected: fire is cold; seen: burnt fingers"));
    }
}
