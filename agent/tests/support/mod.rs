//! An agent that can be killed, over a datapath that outlives it, as the kernel does.

pub(crate) mod spy;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_agent::{
    Agent, Config, StartError,
    config::{DatapathConfig, DatapathKind, EnforcementMode},
    declared::{DeclaredEndpoint, EndpointsFile},
};
use ringfence_policy::name::Name;
use ringfence_proto::v1::agent_client::AgentClient;
use ringfence_runtime::{config, tasks::Tasks, telemetry::LogFormat, tls::TlsFiles};
use tonic::transport::Channel;

use crate::mesh::{Killable, as_role};
use spy::Spy;

/// A running agent.
pub(crate) struct Running {
    pub(crate) agent: Agent,
    pub(crate) runtime: Killable,
    pub(crate) tasks: Tasks,
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn config(directory: &Path, tls: &TlsFiles, gateways: &[std::net::SocketAddr]) -> Config {
    Config {
        cluster: name("east"),
        node: name("n1"),
        addresses: vec!["10.40.1.1".parse().unwrap()],
        ingress_addresses: vec![],
        health_addresses: vec![],
        labels: vec![],
        uplinks: vec![],
        failsafe_ports: vec![],
        policy_enforcement: EnforcementMode::Default,
        gateways: gateways.iter().map(ToString::to_string).collect(),
        tls: as_role(tls, "agent/east/n1"),
        datapath: DatapathConfig { kind: DatapathKind::Memory, bpffs: "/sys/fs/bpf".into(), tcx: true },
        policy_audit_mode: false,
        verify_interval_ms: 30_000,
        endpoints_file: None,
        socket: directory.join("agent.sock"),
        report_interval_ms: 50,
        health_listen: None,
        log_format: LogFormat::Text,
        drain_timeout_ms: 1000,
    }
}

/// Writes an endpoints file: (name, interface, address, label).
pub(crate) fn with_endpoints(mut config: Config, directory: &Path, endpoints: &[(&str, &str, &str, &str)]) -> Config {
    let path = directory.join("endpoints.yaml");
    let endpoints = endpoints.iter().map(|(name, interface, address, label)| declared(name, interface, address, label));
    std::fs::write(&path, config::dump(&EndpointsFile { endpoints: endpoints.collect() })).unwrap();
    config.endpoints_file = Some(path);
    config
}

pub(crate) fn declared(endpoint: &str, interface: &str, address: &str, label: &str) -> DeclaredEndpoint {
    DeclaredEndpoint {
        name: name(endpoint),
        interface: interface.to_owned(),
        addresses: vec![address.parse().unwrap()],
        labels: ringfence_policy::label::LabelSet::parse(label.split(',')).unwrap(),
        named_ports: vec![],
        policy_audit_mode: false,
    }
}

pub(crate) fn try_start(config: &Config, spy: &Spy) -> Result<Running, StartError> {
    let runtime = Killable::new();
    let mut tasks = Tasks::new();
    let spy = spy.clone();
    let agent = runtime.run(async { Agent::start_with(config, || Ok(Box::new(spy)), &mut tasks) })?;
    Ok(Running { agent, runtime, tasks })
}

pub(crate) fn start(config: &Config, spy: &Spy) -> Running {
    let deadline = Instant::now() + Duration::from_secs(60);
    let running = loop {
        match try_start(config, spy) {
            // A killed predecessor takes a moment to be gone.
            Err(StartError::Socket(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            started => break started.unwrap(),
        }
    };
    spy.watch(running.agent.datapath.realised());
    running
}

impl Running {
    pub(crate) fn revision(&self) -> u64 {
        self.agent.datapath.realised().borrow().revision.0
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.agent.datapath.realised().borrow().problems.clone()
    }

    /// As `kill -9`: nothing is said to anybody, and what the kernel has stays.
    pub(crate) fn kill(self) {
        let Self { agent, runtime, tasks } = self;
        drop((agent, tasks));
        runtime.kill();
    }

    /// A client of the local API.
    pub(crate) fn client(&self, config: &Config) -> AgentClient<Channel> {
        let socket = Arc::new(config.socket.clone());
        let connect = tower::service_fn(move |_: tonic::transport::Uri| {
            let socket = Arc::clone(&socket);
            async move { tokio::net::UnixStream::connect(socket.as_path()).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://agent.local");
        AgentClient::new(self.runtime.run(async { endpoint.connect_with_connector_lazy(connect) }))
    }
}
