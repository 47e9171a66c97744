use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// A runtime of its own for one process of the mesh, so that it can go away with all of its connections at once.
pub(crate) struct Killable(Option<Runtime>);

impl Killable {
    pub(crate) fn new() -> Self {
        Self(Some(Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()))
    }

    /// Runs a future to its end on the runtime.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.as_ref().unwrap().block_on(future)
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.as_ref().unwrap().spawn(future);
    }

    /// Ends everything on it without a word to anybody; its addresses are free then.
    pub(crate) fn kill(mut self) {
        self.0.take().unwrap().shutdown_timeout(Duration::from_secs(10));
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
