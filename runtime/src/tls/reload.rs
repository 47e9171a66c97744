//! The newest certificates, while the files change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    TlsFiles,
    error::TlsError,
    material::{Contents, Material},
};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A certificate that ends within this time is warned of, once a day.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The certificates of this process.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<Material>>,
    seen: Mutex<Seen>,
    live: Mutex<Live>,
}

/// What the last look at the files found.
#[derive(Debug)]
struct Seen {
    contents: Contents,
    /// Why the newest files are not in use; told once.
    complaint: Option<String>,
}

/// Connections that clients have open.
#[derive(Debug, Default)]
struct Live {
    next: u64,
    open: HashMap<u64, (Vec<CertificateDer<'static>>, CancellationToken)>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// `TlsError` if they do not make a whole.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let contents = Contents::read(&files)?;
        let current = RwLock::new(Arc::new(Material::new(&files, &contents)?));
        let seen = Mutex::new(Seen { contents, complaint: None });
        Ok(Arc::new(Self { files, current, seen, live: Mutex::default() }))
    }

    /// What new connections use now.
    #[must_use]
    pub fn material(&self) -> Arc<Material> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For the next connection to a server.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.material().client.clone()
    }

    /// For the next connection of a client.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.material().server.clone()
    }

    /// Reads the files again; true if new ones are in use now. Connections of clients that are not trusted any more are
    /// cut off.
    ///
    /// # Errors
    /// `TlsError`; what was in use stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.files)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if contents == seen.contents {
            return Ok(false);
        }
        let material = Arc::new(Material::new(&self.files, &contents)?);
        seen.contents = contents;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = material.clone();
        let mut cut = 0;
        self.live().open.retain(|_, (chain, token)| {
            let trusted = material.trusts(chain);
            if !trusted {
                token.cancel();
                cut += 1;
            }
            trusted
        });
        tracing::info!(files = %self.files.certificate.display(), cut, "new certificates are in use");
        Ok(true)
    }

    /// Follows the files until cancelled: looks every few seconds, and at once on SIGHUP.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub async fn follow(self: Arc<Self>, token: CancellationToken) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        let mut warned = None;
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                _ = hangup.recv() => {}
                _ = ticks.tick() => {}
            }
            self.look();
            if warned.is_none_or(|at: SystemTime| at.elapsed().is_ok_and(|since| since >= WARN_INTERVAL)) {
                warned = self.warn_of_expiry().then(SystemTime::now);
            }
        }
    }

    /// As `reload`; a failure is logged when it is news, and counted.
    fn look(&self) {
        match self.reload() {
            Ok(true) => metrics::counter!("ringfence_tls_reloads_total", "result" => "ok").increment(1),
            Ok(false) => {}
            Err(error) => {
                let complaint = error.to_string();
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.complaint.as_ref() != Some(&complaint) {
                    tracing::error!(%error, "the certificates on disk cannot be used: the old ones stay in use");
                    metrics::counter!("ringfence_tls_reloads_total", "result" => "refused").increment(1);
                }
                seen.complaint = Some(complaint);
                return;
            }
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).complaint = None;
    }

    /// Why the files on disk are not in use; none while they are.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).complaint.clone()
    }

    fn warn_of_expiry(&self) -> bool {
        let soon = SystemTime::now() + WARN_BEFORE;
        let material = self.material();
        let ending: Vec<_> = material.expiries().iter().filter(|expiry| expiry.not_after < soon).collect();
        for expiry in &ending {
            let left = expiry.not_after.duration_since(SystemTime::now()).unwrap_or_default();
            tracing::warn!(
                what = expiry.what,
                name = expiry.name,
                days_left = left.as_secs() / 86_400,
                "a certificate ends soon: make a new one with 'ringfence ca issue --force' or 'ringfence ca rotate'"
            );
        }
        !ending.is_empty()
    }

    /// Sets the gauges of this moment.
    pub fn observe(&self) {
        let refused = if self.complaint().is_some() { 1.0 } else { 0.0 };
        metrics::gauge!("ringfence_tls_files_refused").set(refused);
        for expiry in self.material().expiries() {
            let since_epoch = expiry.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let labels = [("certificate", expiry.what.to_owned()), ("name", expiry.name.clone())];
            metrics::gauge!("ringfence_tls_certificate_not_after_seconds", &labels).set(since_epoch.as_secs_f64());
        }
    }

    /// Remembers a connection; the token is cancelled when its client is not trusted any more.
    pub(super) fn register(&self, chain: Vec<CertificateDer<'static>>) -> (u64, CancellationToken) {
        let token = CancellationToken::new();
        let mut live = self.live();
        live.next += 1;
        let id = live.next;
        // The files may have changed during the handshake.
        if self.material().trusts(&chain) {
            live.open.insert(id, (chain, token.clone()));
        } else {
            token.cancel();
        }
        (id, token)
    }

    pub(super) fn forget(&self, id: u64) {
        self.live().open.remove(&id);
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
