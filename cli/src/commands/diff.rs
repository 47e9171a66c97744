//! `ringfence policy diff`: which verdicts change from some policies to others.

use std::path::PathBuf;

use ringfence_policy::{
    explain::{Difference, Party, describe_decision, describe_protocol, differences},
    flow::Direction,
};
use serde::Serialize;

use super::sources::{self, Member, Sources};
use crate::{
    failure::Failure,
    flags::{Global, Reading},
    output::{self, Format, line, table},
};

/// One difference.
#[derive(Debug, Serialize)]
struct DifferenceView {
    direction: Direction,
    subjects: Vec<String>,
    peers: Vec<String>,
    protocol: String,
    first_port: u16,
    last_port: u16,
    before: String,
    after: String,
}

/// Shows every verdict that changes between the identities, and between them and everyone else.
pub(crate) async fn run(
    files: &[PathBuf],
    to: &[PathBuf],
    identities: Option<&PathBuf>,
    reading: &Reading,
    global: &Global,
) -> Result<(), Failure> {
    let settings = sources::settings(reading)?;
    let before = Sources::of(files, settings.compat, global).await?;
    let after = Sources::without_errors(to, settings.compat)?;
    let mut members = sources::members(identities, &settings, global).await?;
    let subjects: Vec<usize> = (0..members.len()).collect();
    members.extend(sources::others(&[&before, &after], &settings));
    let parties: Vec<Party> = members.iter().map(|member| member.party.clone()).collect();
    let world = sources::world(reading, &[&before, &after]);
    let found = differences(&settings, &world, &before.objects, &after.objects, &parties, &subjects);
    let views: Vec<DifferenceView> = found.iter().map(|found| DifferenceView::new(found, &members)).collect();
    if global.output == Format::Table && views.is_empty() {
        return Ok(line("no verdict changes")?);
    }
    Ok(output::print(global.output, &views, || {
        let header = ["DIRECTION", "SUBJECT", "PEER", "PORTS", "BEFORE", "AFTER"];
        table(header, views.iter().map(DifferenceView::row))
    })?)
}

/// The first of several names, and how many more there are.
fn short(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} (+{})", others.len()),
    }
}

impl DifferenceView {
    fn new(found: &Difference, members: &[Member]) -> Self {
        let names = |indices: &[usize]| indices.iter().map(|index| members[*index].name.clone()).collect();
        let (mut before, mut after) = (describe_decision(&found.before), describe_decision(&found.after));
        if before == after {
            before.push_str(" by other rules");
            after.push_str(" by other rules");
        }
        Self {
            direction: found.direction,
            subjects: names(&found.subjects),
            peers: names(&found.peers),
            protocol: describe_protocol(found.protocol),
            first_port: found.first,
            last_port: found.last,
            before,
            after,
        }
    }

    fn row(&self) -> [String; 6] {
        let ports = match (self.first_port, self.last_port) {
            (0, u16::MAX) => "*".to_owned(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let ports = format!("{ports}/{}", self.protocol);
        let Self { direction, subjects, peers, before, after, .. } = self;
        [direction.to_string(), short(subjects), short(peers), ports, before.clone(), after.clone()]
    }
}
