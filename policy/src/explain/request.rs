//! What a proxy would say about one request of a flow that goes through it.

use crate::{
    evaluate::Redirect,
    l7::{
        dns_name::DnsName,
        dns_rule::DnsMatchers,
        http_matcher::{HttpMatchers, HttpRequest},
        kafka_api::ApiKey,
        kafka_matcher::{KafkaMatchers, KafkaRequest},
        secret::Secrets,
    },
    rule::Parser,
};

/// One request.
#[derive(Clone, Copy, Debug)]
pub enum Request<'r> {
    /// An HTTP request.
    Http(HttpRequest<'r>),
    /// A query for a name.
    Dns(&'r str),
    /// A Kafka request.
    Kafka(KafkaCall<'r>),
}

/// A Kafka request, of a version and client that no rule cares about.
#[derive(Clone, Copy, Debug)]
pub struct KafkaCall<'r> {
    /// Its kind.
    pub api_key: ApiKey,
    /// The topics it speaks of.
    pub topics: &'r [&'r str],
}

impl Redirect {
    /// Whether the proxy passes a request on. A request of another protocol than the proxy reads is refused. Rules that
    /// compare with secrets match nothing: secrets are not known here.
    #[must_use]
    pub fn passes(&self, request: &Request<'_>) -> bool {
        let everything = self.allow_all || self.l3_allow_all && self.parser != Parser::Dns;
        match (request, &self.parser) {
            (Request::Http(request), Parser::Http) => {
                let rules = self.rules.http.as_deref().unwrap_or_default();
                everything || HttpMatchers::compile(rules, &Secrets::default()).judge(request).allowed()
            }
            (Request::Dns(name), Parser::Dns) => {
                let rules = self.rules.dns.as_deref().unwrap_or_default();
                everything || DnsMatchers::compile(rules).allows(&DnsName::new(name))
            }
            (Request::Kafka(call), Parser::Kafka) => {
                let rules = self.rules.kafka.as_deref().unwrap_or_default();
                let KafkaCall { api_key, topics } = *call;
                let request = KafkaRequest { api_key, api_version: 0, client_id: "", topics };
                everything || KafkaMatchers::compile(rules).allows(&request)
            }
            (_, Parser::Tls | Parser::Listener | Parser::Generic(_)) => everything,
            _ => false,
        }
    }
}
