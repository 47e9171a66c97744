//! `ringfence policy selectors`: whom each selector means.

use std::path::PathBuf;

use ringfence_policy::explain::{SelectorUse, describe_selector, selector_uses};
use serde::Serialize;

use super::sources::{self, Member, Sources};
use crate::{
    failure::Failure,
    flags::{Global, Reading},
    output::{self, table},
};

/// One selector.
#[derive(Debug, Serialize)]
struct SelectorView {
    selector: String,
    identities: Vec<String>,
    subject_of: Vec<String>,
    peer_of: Vec<String>,
}

/// Shows every selector, with how many identities it selects.
pub(crate) async fn run(
    files: &[PathBuf],
    identities: Option<&PathBuf>,
    reading: &Reading,
    global: &Global,
) -> Result<(), Failure> {
    let settings = sources::settings(reading)?;
    let sources = Sources::of(files, settings.compat, global).await?;
    let members = sources::members(identities, &settings, global).await?;
    let uses = selector_uses(&settings, &sources::world(reading, &[&sources]), &sources.objects);
    let views: Vec<SelectorView> = uses.iter().map(|found| SelectorView::new(found, &members, &sources)).collect();
    Ok(output::print(global.output, &views, || {
        let header = ["SELECTOR", "IDENTITIES", "SUBJECT OF", "PEER OF"];
        table(header, views.iter().map(SelectorView::row))
    })?)
}

impl SelectorView {
    fn new(found: &SelectorUse, members: &[Member], sources: &Sources) -> Self {
        let selected =
            members.iter().filter(|Member { party, .. }| found.selector.selects(party.identity, &party.labels));
        let place = |place| sources.location(place);
        Self {
            selector: describe_selector(&found.selector),
            identities: selected.map(|member| member.name.clone()).collect(),
            subject_of: found.subjects.iter().map(place).collect(),
            peer_of: found.peers.iter().map(place).collect(),
        }
    }

    fn row(&self) -> [String; 4] {
        let short = |places: &Vec<String>| match places.as_slice() {
            [] => "-".to_owned(),
            [one] => one.clone(),
            [first, others @ ..] => format!("{first} (+{})", others.len()),
        };
        let count = self.identities.len().to_string();
        [self.selector.clone(), count, short(&self.subject_of), short(&self.peer_of)]
    }
}
