//! The files that a running relay reads again: all of them on SIGHUP, `ids` when it changes. Threads read them, because a
//! disk or a lock may take long.

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

/// What a reload has read.
pub(super) type Reloaded = (Settings, (TlsSetup, Served), Ids);

/// The state of the file `ids`, and what was in it then.
type ChangedIds = (Stamp, Result<Ids, Failure>);

/// Where the relay's files are.
pub(super) struct Sources {
    /// As they were typed: SIGHUP reads `--config`, `--cert` and `--key` again.
    pub(super) args: Vec<String>,
    pub(super) state: State,
    /// The file `ids`.
    pub(super) ids: PathBuf,
    /// The ceiling of all buffers, which stays as it is.
    pub(super) buffer_octets_max: usize,
    /// Certificates from a CA, and how the CA's own is checked: both stay as they are.
    pub(super) acme_tls: Option<(Arc<LiveCertificates>, ClientTls)>,
}

impl Sources {
    /// All or nothing: if one of them is wrong, the old ones stay.
    fn read(&self) -> Result<Reloaded, Failure> {
        let matches = parse(&SPEC, &self.args)?;
        let mut settings = Settings::read(&matches, Some(self.buffer_octets_max))?;
        limit_connections(&mut settings);
        let tls = tls_setup(&settings, &self.state, self.acme_tls.as_ref())?;
        let ids = Ids::load(&self.ids)?;
        Ok((settings, tls, ids))
    }
}

/// The threads, and what they were asked for.
pub(super) struct Files {
    reload: Worker<(), Result<Reloaded, Failure>>,
    /// SIGHUP came during a reload, which may have read some files before they were changed.
    reload_again: bool,
    /// Gets the state in which the file `ids` was seen last; answers if it is in another.
    ids: Worker<Stamp, Option<ChangedIds>>,
    seen: Stamp,
    /// The next answer about `ids` is older than what a reload has read.
    is_outdated: bool,
}

impl Files {
    /// Starts the threads. `seen`: the state of the file `ids` when it was read.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(sources: Sources, seen: Stamp, net: &MioNet) -> io::Result<Self> {
        let path = sources.ids.clone();
        let ids = Worker::start("ids", net.waker(), move |seen| {
            // Taken before the file is read: a change in between shows at the next look.
            let stamp = Stamp::of(&path);
            (stamp != seen).then(|| (stamp, Ids::load(&path)))
        })?;
        let reload = Worker::start("reload", net.waker(), move |()| sources.read())?;
        Ok(Self { reload, reload_again: false, ids, seen, is_outdated: false })
    }

    /// Begins to read everything again.
    pub(super) fn reload(&mut self) {
        if !self.reload.ask(()) {
            self.reload_again = true;
        }
    }

    pub(super) const fn is_reloading(&self) -> bool {
        self.reload.is_busy()
    }

    /// What the last reload has read.
    pub(super) fn reloaded(&mut self) -> Option<Result<Reloaded, Failure>> {
        let reloaded = self.reload.answer()?;
        if std::mem::take(&mut self.reload_again) {
            self.reload.ask(());
        }
        if let Ok((_, _, ids)) = &reloaded {
            self.seen = ids.stamp();
            self.is_outdated = self.ids.is_busy();
        }
        Some(reloaded)
    }

    /// Begins to look whether the file `ids` has changed.
    pub(super) fn look_at_ids(&mut self) {
        self.ids.ask(self.seen);
    }

    /// The file `ids`, if it has changed.
    pub(super) fn changed_ids(&mut self) -> Option<Result<Ids, Failure>> {
        let answer = self.ids.answer()?;
        let is_outdated = std::mem::take(&mut self.is_outdated);
        let (stamp, ids) = answer.filter(|_| !is_outdated)?;
        self.seen = stamp;
        Some(ids)
    }
}
