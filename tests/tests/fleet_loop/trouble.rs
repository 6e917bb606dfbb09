//! What befalls a device: its link, its power, its clock, its owner.

use jiff::tz::TimeZone;
use sealift_protocol::report::Hold;

use super::{HOUR, Happening, Incident, MINUTE, POLL, SECOND, WILL, World};

impl World {
    pub(super) fn plan_trouble(&mut self, number: usize) {
        if self.weather.trouble_every < i64::MAX {
            let after = self.dice.i64(0..2 * self.weather.trouble_every);
            self.incident(number, after, Incident::Trouble);
        }
    }

    pub(super) fn trouble(&mut self, number: usize) {
        self.plan_trouble(number);
        if self.weather.trouble_every == i64::MAX {
            return;
        }
        match self.dice.u32(0..12) {
            0..4 => self.link_down(number),
            4..6 => self.power_off(number),
            // In the middle of whatever it does next.
            6..8 => {
                let effects = self.dice.usize(1..8);
                self.devices[number].twin.lose_power_after(effects);
            }
            8 => self.befall(number, Incident::Crash),
            9 => self.hold(number),
            10 => {
                let zones = ["UTC", "Asia/Tokyo", "Europe/Berlin", "America/St_Johns"];
                let zone = TimeZone::get(zones[self.dice.usize(0..4)]).unwrap();
                self.devices[number].twin.set_zone(zone);
                self.look(number);
            }
            _ => {
                const YEAR: i64 = 365 * 24 * HOUR;
                let skew = [0, -10 * MINUTE, -57 * YEAR, 10 * YEAR][self.dice.usize(0..4)];
                self.devices[number].twin.set_clock(skew);
                self.look(number);
            }
        }
    }

    /// An agent looks at its clock all the time; here it is told when that has changed.
    pub(super) fn look(&mut self, number: usize) {
        self.incident(number, SECOND, Incident::Tick);
    }

    /// The owner keeps what is there; a word that was given before ends with it.
    fn hold(&mut self, number: usize) {
        let length = self.dice.i64(MINUTE..3 * HOUR);
        let (until, reason) = (self.now.plus(length), "a visit".to_owned());
        self.devices[number].hold = Some(Hold { until, reason });
        self.obey_owner(number);
    }

    /// As the agent does it: the word is in a file, and ends by itself.
    pub(super) fn obey_owner(&mut self, number: usize) {
        let now = self.now;
        let device = &mut self.devices[number];
        device.hold.take_if(|hold| hold.until <= now);
        let asks = device.twin.held(device.hold.clone(), now);
        if let Some(hold) = &device.hold {
            let after = hold.until.since(now);
            self.incident(number, after, Incident::Released);
        }
        self.answer(number, asks);
    }

    pub(super) fn link_up(&mut self, number: usize) {
        if !self.is_server_up {
            let after = self.dice.i64(SECOND..5 * MINUTE);
            return self.incident(number, after, Incident::LinkUp);
        }
        // Its certificate is refused, now and for ever.
        if self.server.is_revoked(self.devices[number].twin.id()) {
            return;
        }
        let device = &mut self.devices[number];
        device.is_linked = true;
        device.epoch += 1;
        let epoch = device.epoch;
        self.later(100, Happening::Connected(number, epoch));
        self.poll(number);
        self.send_report(number);
    }

    pub(super) fn link_down(&mut self, number: usize) {
        let device = &mut self.devices[number];
        if !device.is_linked {
            return;
        }
        device.is_linked = false;
        let epoch = device.epoch;
        self.later(WILL, Happening::Will(number, epoch));
        let after = self.dice.i64(SECOND..2 * HOUR);
        self.incident(number, after, Incident::LinkUp);
    }

    pub(super) fn power_on(&mut self, number: usize) {
        let device = &mut self.devices[number];
        device.is_powered = true;
        device.boot += 1;
        device.tick_at = None;
        let asks = device.twin.start(self.now);
        self.answer(number, asks);
        self.obey_owner(number);
        self.incident(number, POLL, Incident::Poll);
        self.plan_trouble(number);
        self.link_up(number);
    }

    pub(super) fn power_off(&mut self, number: usize) {
        self.link_down(number);
        let device = &mut self.devices[number];
        device.is_powered = false;
        device.boot += 1;
        let after = self.dice.i64(SECOND..HOUR);
        self.incident(number, after, Incident::PowerOn);
    }
}
