//! Files that a running relay reads again: all of them on SIGHUP, `ids` when it changes. Threads read them, because a
//! disk or a lock may block.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Served, limit_connections, tls_setup};
use crate::command::serve::settings::{SPEC, Settings};
use crate::event_loop::{ClientTls, TlsSetup};
use crate::failure::Failure;
use crate::ids::{Ids, Stamp};
use crate::live_certificates::LiveCertificates;
use crate::net::mio::MioNet;
use crate::options::parse;
use crate::state::State;
use crate::worker::Worker;

/// The result of a reload.
pub(super) type Reloaded = (Settings, (TlsSetup, Served), Ids);

/// The stamp of the file `ids`, and its content.
type ChangedIds = (Stamp, Result<Ids, Failure>);

/// The locations of the relay's files.
pub(super) struct Sources {
    /// The command line: SIGHUP reads `--config`, `--cert` and `--key` again.
    pub(super) args: Vec<String>,
    pub(super) state: State,
    /// The file `ids`.
    pub(super) ids: PathBuf,
    /// The limit of all buffers, which a reload does not change.
    pub(super) buffer_bytes_max: usize,
    /// Certificates from a CA, and how the CA's own is checked: both stay as they are.
    pub(super) acme_tls: Option<(Arc<LiveCertificates>, ClientTls)>,
}

impl Sources {
    /// Reads all files. If one of them is invalid, the old settings stay.
    fn read(&self) -> Result<Reloaded, Failure> {
        let matches = parse(&SPEC, &self.args)?;
        let mut settings = Settings::read(&matches, Some(self.buffer_bytes_max))?;
        limit_connections(&mut settings);
        let tls = tls_setup(&settings, &self.state, self.acme_tls.as_ref())?;
        let ids = Ids::load(&self.ids)?;
        Ok((settings, tls, ids))
    }
}

/// The threads and their pending requests.
pub(super) struct Files {
    reload: Worker<(), Result<Reloaded, Failure>>,
    /// Whether SIGHUP came during a reload, which may have read files before they were changed.
    reload_again: bool,
    /// The location of the file `ids`.
    ids_path: PathBuf,
    /// Takes the last stamp of the file `ids`. Responds with the file if its stamp differs.
    ids: Worker<Stamp, Option<ChangedIds>>,
    seen: Stamp,
    /// Whether the pending response about `ids` is older than the result of a reload.
    is_outdated: bool,
}

impl Files {
    /// Starts the threads. `seen` is the stamp of the file `ids` when it was read.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn start(sources: Sources, seen: Stamp, net: &MioNet) -> io::Result<Self> {
        let path = sources.ids.clone();
        let ids_path = path.clone();
        let ids = Worker::start("ids", net.waker(), move |seen| {
            // Taken before the file is read, so that a change in between is detected by the next check.
            let stamp = Stamp::of(&path);
            (stamp != seen).then(|| (stamp, Ids::load(&path)))
        })?;
        let reload = Worker::start("reload", net.waker(), move |()| sources.read())?;
        Ok(Self { reload, reload_again: false, ids_path, ids, seen, is_outdated: false })
    }

    /// Starts a reload.
    pub(super) fn reload(&mut self) {
        if !self.reload.ask(()) {
            self.reload_again = true;
        }
    }

    pub(super) const fn is_reloading(&self) -> bool {
        self.reload.is_busy()
    }

    /// Takes the result of the last reload. It is a failure if its IDs may not replace `old`.
    pub(super) fn reloaded(&mut self, old: &Ids) -> Option<Result<Reloaded, Failure>> {
        let reloaded = self.reload.answer()?;
        if std::mem::take(&mut self.reload_again) {
            self.reload.ask(());
        }
        if let Ok((_, _, ids)) = &reloaded {
            self.seen = ids.stamp();
            self.is_outdated = self.ids.is_busy();
        }
        Some(reloaded.and_then(|(settings, tls, ids)| Ok((settings, tls, self.checked(ids, old)?))))
    }

    /// Starts a check whether the file `ids` has changed.
    pub(super) fn check_ids(&mut self) {
        self.ids.ask(self.seen);
    }

    /// Takes the file `ids`, if it has changed. It is a failure if it may not replace `old`.
    pub(super) fn changed_ids(&mut self, old: &Ids) -> Option<Result<Ids, Failure>> {
        let answer = self.ids.answer()?;
        let is_outdated = std::mem::take(&mut self.is_outdated);
        let (stamp, ids) = answer.filter(|_| !is_outdated)?;
        self.seen = stamp;
        Some(ids.and_then(|ids| self.checked(ids, old)))
    }

    fn checked(&self, ids: Ids, old: &Ids) -> Result<Ids, Failure> {
        ids.check_successor_of(old, &self.ids_path)?;
        Ok(ids)
    }
}
