//! `ringfence policy explain`: why a flow passes or does not.

use ringfence_policy::{
    evaluate::Decision,
    explain::{Explanation, Place, Request, describe_protocol, describe_verdict, explain},
    flow::{Direction, Flow},
    identity::Identity,
    l7::http_matcher::HttpRequest,
    world::Settings,
};
use serde::Serialize;

use super::sources::{self, Sources};
use crate::{
    args::ExplainArguments,
    failure::Failure,
    flags::Global,
    output::{self, Format, line, table},
};

/// An explanation, for programs.
#[derive(Debug, Serialize)]
pub(super) struct ExplanationView {
    verdict: String,
    direction: Direction,
    protocol: String,
    port: u16,
    /// Whether the proxy passes the request that was given.
    request_passes: Option<bool>,
    explanation: String,
    selected_by: Vec<PlaceView>,
    matches: Vec<MatchView>,
    nearest: Option<NearView>,
    /// What would be if the policies under audit counted, where one selects the subject.
    shadow: Option<Box<ExplanationView>>,
}

#[derive(Debug, Serialize)]
struct PlaceView {
    object: String,
    path: String,
    location: String,
}

#[derive(Debug, Serialize)]
struct MatchView {
    effect: &'static str,
    parser: Option<String>,
    decides: bool,
    /// Its policy is under audit.
    audit: bool,
    log: Option<String>,
    #[serde(flatten)]
    place: PlaceView,
}

#[derive(Debug, Serialize)]
struct NearView {
    wants: String,
    #[serde(flatten)]
    place: PlaceView,
}

/// Explains one flow.
pub(crate) async fn run(arguments: &ExplainArguments, global: &Global) -> Result<(), Failure> {
    let ExplainArguments { files, reading, subject, peer, port, protocol, http, dns, ingress, audit, .. } = arguments;
    let settings = Settings { audit: *audit, ..sources::settings(reading)? };
    let sources = Sources::of(files, settings.compat, global).await?;
    let subject = sources::party(subject, "--subject", &sources, &settings, global).await?;
    let peer = sources::party(peer, "--peer", &sources, &settings, global).await?;
    let direction = if *ingress { Direction::Ingress } else { Direction::Egress };
    let (unknown, protocol) = (Identity::UNKNOWN, *protocol);
    let flow = Flow { subject: unknown, peer: unknown, direction, protocol, port: *port };
    let request = match (http, dns) {
        (Some(text), _) => Some(http_request(text)?),
        (None, Some(name)) => Some(Request::Dns(name)),
        (None, None) => None,
    };
    let world = sources::world_of(files, &sources, &subject, reading, global).await?;
    let explained = explain(&settings, &world, &sources.objects, &subject, &peer, flow);
    let view = ExplanationView::new(&explained, request.as_ref(), &sources);
    if global.output == Format::Table {
        return Ok(view.lines().iter().try_for_each(|text| line(text))?);
    }
    Ok(output::print(global.output, &view, || table([""], []))?)
}

/// `METHOD PATH [HOST]`.
fn http_request(text: &str) -> Result<Request<'_>, Failure> {
    let mut words = text.split_whitespace();
    match (words.next(), words.next(), words.next().unwrap_or_default(), words.next()) {
        (Some(method), Some(path), host, None) => Ok(Request::Http(HttpRequest::new(method, path, host))),
        _ => {
            Err(Failure::Usage { reason: format!("--http {text:?}: write \"METHOD /path\" or \"METHOD /path host\"") })
        }
    }
}

impl ExplanationView {
    pub(super) fn new(explained: &Explanation, request: Option<&Request<'_>>, sources: &Sources) -> Self {
        let place = |place: &Place| PlaceView {
            object: place.key.to_string(),
            path: place.path.clone(),
            location: sources.location(place),
        };
        let decided = explained.decided_by();
        let matches = explained.matches.iter().map(|found| MatchView {
            effect: if found.denies { "deny" } else { "allow" },
            parser: found.parser.as_ref().map(ToString::to_string),
            decides: decided == Some(found),
            audit: found.audit,
            log: found.log.clone(),
            place: place(&found.place),
        });
        let near = |near: &ringfence_policy::explain::NearMiss| NearView {
            wants: near.wants.clone(),
            place: place(&near.place),
        };
        Self {
            verdict: describe_verdict(explained),
            direction: explained.flow.direction,
            protocol: describe_protocol(explained.flow.protocol),
            port: explained.flow.port,
            request_passes: request.map(|request| passes(explained, Some(request))),
            explanation: explained.to_string(),
            selected_by: explained.selected_by.iter().map(place).collect(),
            matches: matches.collect(),
            nearest: explained.near_miss().map(near),
            shadow: explained.shadow.as_deref().map(|shadow| Box::new(Self::new(shadow, request, sources))),
        }
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { verdict, direction, protocol, port, .. } = self;
        let mut lines = vec![format!("{verdict}: {direction} {port}/{protocol}"), self.explanation.clone()];
        lines.extend(
            self.request_passes.map(|passes| format!("the request {}", if passes { "passes" } else { "is refused" })),
        );
        for PlaceView { object, path, location } in &self.selected_by {
            lines.push(format!("  selected by  {location}  {object} {path}"));
        }
        for MatchView { effect, parser, decides, audit, log, place: PlaceView { object, path, location } } in
            &self.matches
        {
            let parser = parser.as_ref().map(|parser| format!(" through the {parser} proxy")).unwrap_or_default();
            let audit = if *audit { ", under audit" } else { "" };
            let log = log.as_ref().map(|log| format!(", log {log:?}")).unwrap_or_default();
            let decides = if *decides { "  <- decides" } else { "" };
            lines.push(format!("  {effect:<11}  {location}  {object} {path}{parser}{audit}{log}{decides}"));
        }
        if let Some(NearView { wants, place: PlaceView { object, path, location } }) = &self.nearest {
            lines.push(format!("  nearest      {location}  {object} {path} wants {wants}"));
        }
        if let Some(shadow) = &self.shadow {
            lines.push("if the policies under audit counted:".to_owned());
            lines.extend(shadow.lines().into_iter().map(|text| format!("  {text}")));
        }
        lines
    }
}

/// Whether a flow passes, and a request in it, if there is one.
pub(super) fn passes(explained: &Explanation, request: Option<&Request<'_>>) -> bool {
    match (&explained.decision, request) {
        (Ok(Decision::Redirect(redirect)), Some(request)) => redirect.passes(request),
        _ => explained.passes(),
    }
}
