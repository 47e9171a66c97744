//! Layer 7: what requests, DNS queries, TLS names and Kafka calls a rule speaks of.
//!
//! ```text
//! rule as written ─ check ─► findings (VAL-20 … VAL-34)                      rejected as a whole
//!                 ├ advise ─► Advice (HTTP-2, DNS-12, …)                     legal, probably not meant
//!                 └ compile ─► matcher ─ HttpRequest, DnsName, KafkaRequest, server name ─► allowed or not
//! ```
//!
//! Proxies call the matchers with what they parsed off the wire; nothing here reads bytes off a connection. Every
//! matcher takes time linear in the value for a given rule, values and rules have upper bounds, and what is beyond a bound does not match.

pub mod advice;
pub mod dns_name;
pub mod dns_pattern;
pub mod dns_rule;
pub mod expression;
pub mod generic;
pub mod header;
pub mod http;
pub mod http_matcher;
pub mod http_path;
pub mod kafka;
pub mod kafka_api;
pub mod kafka_matcher;
mod re2;
pub mod rules;
pub mod secret;
pub mod server_name;
