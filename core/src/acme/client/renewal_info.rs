//! Renewal information (RFC 9773): requests and responses.

use alloc::format;
use alloc::string::String;

use super::super::attempts::DAY;
use super::super::event::Event;
use super::super::message::{Method, Response};
use super::super::names::Names;
use super::super::objects::RenewalInfo;
use super::super::renewal::Window;
use super::super::url::Url;
use super::{Client, Exchange, Next};
use crate::time::Now;

/// The pause after an error, and where the CA does not say how long (RFC 9773 §4.3.3).
const PAUSE: u64 = 6 * 3_600;
/// The bounds of the CA's `Retry-After`.
const ASKED: (u64, u64) = (60, DAY);

impl Client {
    pub(super) fn ask_renewal_info(&mut self, names: Names, now: Now) {
        let base = self.directory.as_ref().and_then(|(it, _)| it.renewal_info.as_ref());
        let id = self.certificate(&names).and_then(super::super::action::Certificate::renewal_id);
        let url = base
            .zip(id)
            .and_then(|(base, id)| Url::parse(&format!("{}/{id}", base.as_str().trim_end_matches('/'))));
        match url {
            Some(url) => {
                self.request(Method::Get, url, String::new(), Exchange::RenewalInfo(names), now);
            }
            // The CA has none. Its directory may change.
            None => self.look_again(&names, DAY, now),
        }
    }

    pub(super) fn renewal_info(&mut self, names: &Names, response: &Response, now: Now) {
        let info = RenewalInfo::read(&response.body).filter(|_| response.status == 200);
        let id = self.certificate(names).and_then(super::super::action::Certificate::renewal_id);
        let (Some(info), Some(id)) = (info, id) else { return self.no_renewal_info(names, now) };
        let asked = response.retry_after.map_or(PAUSE, |it| it.seconds(now.wall).clamp(ASKED.0, ASKED.1));
        let entry = self.state.entry_mut(names);
        let window = Window::update(entry.window.as_ref(), &id, &info, &mut self.entropy, now.wall);
        let is_new = entry.window.as_ref().is_none_or(|it| it.start != window.start || it.end != window.end);
        entry.window = Some(window);
        if let Some(url) = info.explanation.filter(|_| is_new) {
            self.emit(Event::Explained { names: names.clone(), url });
        }
        self.look_again(names, asked, now);
    }

    pub(super) fn no_renewal_info(&mut self, names: &Names, now: Now) {
        let pause = self.jittered(PAUSE);
        self.look_again(names, pause, now);
    }

    fn look_again(&mut self, names: &Names, pause: u64, now: Now) {
        self.state.entry_mut(names).look_at = now.wall.saturating_add(pause);
        self.store(Next::Plan, now);
    }
}
