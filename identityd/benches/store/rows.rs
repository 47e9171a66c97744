//! What comes out: lines to read now, rows for `cargo xtask bench`.

use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) lines: Vec<String>,
    pub(crate) rows: Vec<Value>,
}

impl Rows {
    /// A figure with the peer's beside it. `target` is the ratio to the peer that is wanted.
    pub(crate) fn compare(&mut self, name: &str, unit: &str, ours: f64, peer: Option<f64>, target: Option<Target>) {
        let ratio = peer.map(|peer| ours / peer);
        let status = ratio.zip(target).map(|(ratio, target)| if target.is_met(ratio) { "ok" } else { "short" });
        let finite = |value: f64| if value.is_finite() { json!(value) } else { Value::Null };
        self.rows.push(json!({
            "name": name, "value": if ours.is_finite() { ours } else { -1.0 }, "unit": unit,
            "peer": peer.map(|_| "etcd"), "peer_value": peer.map(finite), "ratio": ratio.map(finite),
            "target": target.map(Target::text), "status": status,
        }));
    }

    pub(crate) fn line(&mut self, text: String) {
        println!("{text}");
        self.lines.push(text);
    }
}

/// A ratio to the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most}x"),
            Self::AtLeast(least) => format!(">= {least}x"),
        }
    }
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => figures[length / 2],
        length => f64::midpoint(figures[length / 2 - 1], figures[length / 2]),
    }
}
