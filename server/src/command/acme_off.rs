//! Stand-ins for the ACME options in a program without that feature.

use std::path::PathBuf;
use std::sync::Arc;

use mio::Waker;
use rendezvous_core::machine::{Listener, Machine};
use rendezvous_core::time::Now;

use crate::daemon::Loop;
use crate::event_loop::ClientTls;
use crate::failure::Failure;
use crate::linux::descriptors::OwnedFd;
use crate::live_certificates::LiveCertificates;
use crate::options::Opt;
use crate::state::{Lock, State};
use crate::status::document::CertificateOfCa;

/// The machine itself.
pub(super) type Host<M> = M;

/// The machine itself.
pub(super) const fn inner<M: Machine>(host: &Host<M>) -> &M {
    host
}

/// The machine itself.
pub(super) const fn inner_mut<M: Machine>(host: &mut Host<M>) -> &mut M {
    host
}

/// The number of [`options`].
pub(super) const OPTIONS: usize = 0;

/// No options.
pub(super) const fn options(_: &'static str) -> [Opt; OPTIONS] {
    []
}

/// Nothing.
#[derive(Debug, Default)]
pub(super) struct Acme;

#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
impl Acme {
    pub(super) const fn is_on(&self) -> bool {
        false
    }

    pub(super) const fn changes_keys(&self) -> bool {
        false
    }

    pub(super) const fn tls(&self) -> Result<Option<(Arc<LiveCertificates>, ClientTls)>, Failure> {
        Ok(None)
    }

    pub(super) fn open(
        &mut self,
        _: &State,
        _: &str,
        _: Vec<String>,
        _: Option<(String, PathBuf)>,
        _: Option<Lock>,
        _: Now,
    ) -> Result<(), Failure> {
        Ok(())
    }

    pub(super) fn host<M: Machine>(&mut self, machine: M, _: usize, _: Option<(Listener, u32)>) -> Host<M> {
        machine
    }

    pub(super) fn start(&mut self, _: Arc<Waker>) -> Result<(), Failure> {
        Ok(())
    }

    pub(super) fn want(&mut self, _: Vec<String>) {}

    pub(super) const fn set_reachable(&mut self, _: bool) {}

    pub(super) fn work<M: Machine>(&mut self, _: &mut Loop<Host<M>>) {}

    pub(super) const fn stop(&mut self) {}

    pub(super) const fn lock(&self) -> Option<OwnedFd> {
        None
    }

    pub(super) fn retire<M: Machine>(&mut self, _: &mut Loop<Host<M>>) {}

    pub(super) const fn report<M: Machine>(&self, _: &Host<M>) -> Vec<CertificateOfCa> {
        Vec::new()
    }

    pub(super) const fn live(&self) -> Option<&LiveCertificates> {
        None
    }
}
