//! The list of keys that a service serves, and its tasks.

use core::time::Duration;

use keytally_keys::list::List;
use keytally_keys::page::LinkCommand;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The list that a service serves.
#[derive(Debug)]
pub(crate) struct ServedList {
    pub(crate) list: List,
    /// The URL of the service as people see it.
    pub(crate) public_url: String,
    /// The path before `/keys` for the page.
    pub(crate) base_path: String,
    /// The URL of the API that the keys are for, in examples.
    pub(crate) api_url: String,
    /// The command that makes a link to the page.
    pub(crate) link_command: LinkCommand,
}

/// The tasks of a list that is served.
#[derive(Debug)]
pub(crate) struct ListTasks {
    /// Keeps the gate up to date with the list.
    pub(crate) following: JoinHandle<()>,
    /// Adds the uses of keys to the list.
    pub(crate) sampling: JoinHandle<()>,
    /// Ends `sampling` when it is dropped.
    pub(crate) stop: oneshot::Sender<()>,
}

/// How long a stop waits until the last uses are in the list. What is not waits in the file of
/// counts.
const LAST_SAMPLE: Duration = Duration::from_secs(2);

impl ListTasks {
    /// Ends the tasks.
    pub(crate) async fn stop(self) {
        self.following.abort();
        // It ends with an error, that of the abortion.
        let _ = self.following.await;
        drop(self.stop);
        let mut sampling = self.sampling;
        if timeout(LAST_SAMPLE, &mut sampling).await.is_err() {
            sampling.abort();
        }
    }
}
