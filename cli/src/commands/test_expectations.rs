//! `ringfence policy test`: expected verdicts, made for continuous integration.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ringfence_policy::{
    address::AddressBook,
    evaluate::Decision,
    explain::{Explanation, KafkaCall, Party, Request, describe_verdict, explain, parse_protocol},
    flow::Flow,
    identity::Identity,
    l7::{http_matcher::HttpRequest, kafka_api::ApiKey},
    world::{Settings, World},
};
use serde::Serialize;

use super::{
    expectations::{Case, Expected, File},
    explain::{ExplanationView, passes},
    sources::{Member, Sources, counted},
};
use crate::{
    failure::Failure,
    output::{self, Format, line, table},
};

/// The outcome of all cases of one file.
#[derive(Debug, Serialize)]
struct TestView {
    file: String,
    passed: usize,
    failed: Vec<FailedView>,
}

#[derive(Debug, Serialize)]
struct FailedView {
    case: String,
    location: String,
    expected: String,
    found: String,
    explanation: ExplanationView,
}

/// What the cases of one file are asked of.
struct Scene {
    settings: Settings,
    world: World,
    sources: Sources,
    addresses: AddressBook,
    members: BTreeMap<String, Member>,
}

/// Checks the cases of every file.
pub(crate) fn run(paths: &[PathBuf], format: Format) -> Result<(), Failure> {
    let views: Vec<TestView> = paths.iter().map(|path| check(path)).collect::<anyhow::Result<_>>()?;
    let failed: usize = views.iter().map(|view| view.failed.len()).sum();
    if format == Format::Table {
        for view in &views {
            view.lines().iter().try_for_each(|text| line(text))?;
        }
    } else {
        output::print(format, &views, || table([""], []))?;
    }
    match failed {
        0 => Ok(()),
        count => Err(anyhow::anyhow!("{} failed", counted(count, "case")).into()),
    }
}

fn check(path: &Path) -> anyhow::Result<TestView> {
    let file = File::read(path)?;
    anyhow::ensure!(!file.content.cases.is_empty(), "{} has no cases", file.name);
    anyhow::ensure!(!file.policies().is_empty(), "{} names no policies: write policies: [FILE]", file.name);
    let settings = file.settings()?;
    let sources = Sources::without_errors(&file.policies(), settings.compat)?;
    let addresses = sources.addresses(&settings);
    let world = World { services: sources.services.clone(), ..file.world()? };
    let scene = Scene { world, members: file.members(&settings)?, settings, sources, addresses };
    let mut view = TestView { file: file.name.clone(), passed: 0, failed: Vec::new() };
    for (index, case) in file.content.cases.iter().enumerate() {
        let location = file.location(index);
        let failed = scene.check(case, &location).with_context(|| format!("{location}: error"))?;
        view.passed += usize::from(failed.is_none());
        view.failed.extend(failed);
    }
    Ok(view)
}

impl Scene {
    fn check(&self, case: &Case, location: &str) -> anyhow::Result<Option<FailedView>> {
        let protocol = parse_protocol(&case.protocol)
            .with_context(|| format!("protocol {:?}: write TCP, UDP, SCTP, ICMP or ICMPv6", case.protocol))?;
        let subject = self.party(&case.subject).context("subject")?;
        let peer = self.party(&case.peer).context("peer")?;
        let (unknown, direction, port) = (Identity::UNKNOWN, case.direction, case.port);
        let flow = Flow { subject: unknown, peer: unknown, direction, protocol, port };
        let settings = Settings { audit: self.settings.audit || case.audit, ..self.settings.clone() };
        let explained = explain(&settings, &self.world, &self.sources.objects, &subject, &peer, flow);

        let headers: Vec<(&str, &[u8])> = case.http.iter().flat_map(|http| &http.headers).map(pair).collect();
        let topics: Vec<&str> = case.kafka.iter().flat_map(|kafka| &kafka.topics).map(String::as_str).collect();
        let request = match (&case.http, &case.dns, &case.kafka) {
            (None, None, None) => None,
            (Some(http), None, None) => {
                let request = HttpRequest::new(http.method.as_str(), &http.path, &http.host);
                Some(Request::Http(request.with_headers(&headers)))
            }
            (None, Some(name), None) => Some(Request::Dns(name)),
            (None, None, Some(kafka)) => {
                let api_key = ApiKey::from_name(&kafka.api_key);
                let api_key = api_key.with_context(|| format!("kafka.apiKey: {:?} is unknown", kafka.api_key))?;
                Some(Request::Kafka(KafkaCall { api_key, topics: &topics }))
            }
            _ => anyhow::bail!("write one of http, dns and kafka"),
        };
        let met = case.expect.is_met(&explained, request.as_ref());
        // Without policies under audit, what would be is what is.
        let shadow = explained.shadow.as_deref().unwrap_or(&explained);
        let shadow_met = case.shadow.is_none_or(|expected| expected.is_met(shadow, request.as_ref()));
        if met && shadow_met {
            return Ok(None);
        }
        let found = |explained: &Explanation| {
            let refused = explained.passes() && !passes(explained, request.as_ref());
            let verdict = describe_verdict(explained);
            if refused { format!("{verdict}, the request is refused") } else { verdict }
        };
        let [expected, found] = match (met, case.shadow) {
            (true, Some(expected)) => [format!("shadow {}", expected.word()), format!("shadow {}", found(shadow))],
            _ => [case.expect.word().to_owned(), found(&explained)],
        };
        Ok(Some(FailedView {
            case: case.name.clone().unwrap_or_else(|| format!("{direction} of {} and {}", case.subject, case.peer)),
            location: location.to_owned(),
            expected,
            found,
            explanation: ExplanationView::new(&explained, request.as_ref(), &self.sources),
        }))
    }

    fn party(&self, text: &str) -> anyhow::Result<Party> {
        if let Some(member) = self.members.get(text) {
            return Ok(member.party.clone());
        }
        Ok(Party::parse(text, self.sources.rules(), &self.addresses, &self.settings)?)
    }
}

fn pair<'h>((name, value): (&'h String, &'h String)) -> (&'h str, &'h [u8]) {
    (name, value.as_bytes())
}

impl Expected {
    const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Redirect => "redirect",
            Self::Deny => "deny",
            Self::DenyDefault => "deny-default",
            Self::DenyExplicit => "deny-explicit",
            Self::Audit => "audit",
        }
    }

    fn is_met(self, explained: &Explanation, request: Option<&Request<'_>>) -> bool {
        let passes = passes(explained, request);
        match self {
            Self::Allow => passes,
            Self::Redirect => passes && matches!(explained.decision, Ok(Decision::Redirect(_))),
            // Where rules contradict each other, nothing is known: that is no refusal.
            Self::Deny => !passes && explained.decision.is_ok(),
            Self::DenyDefault => !passes && explained.decision == Ok(Decision::DenyDefault),
            Self::DenyExplicit => !passes && explained.decision == Ok(Decision::DenyExplicit),
            Self::Audit => {
                let audited = explained.outcome().is_some_and(|outcome| outcome.is_audited());
                let refuses = |shadow: &Explanation| shadow.decision.is_ok() && !self::passes(shadow, request);
                passes && (audited || explained.shadow.as_deref().is_some_and(refuses))
            }
        }
    }
}

impl TestView {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for FailedView { case, location, expected, found, explanation } in &self.failed {
            lines.push(format!("{location}: FAILED {case}: expected {expected}, found {found}"));
            lines.extend(explanation.lines().into_iter().map(|text| format!("  {text}")));
        }
        lines.push(format!("{}: {} passed, {} failed", self.file, self.passed, self.failed.len()));
        lines
    }
}
