//! The bytes of an `ExportMetricsServiceRequest`: `opentelemetry/proto/collector/metrics/v1`, as far as gauges and counters need it.

use super::points::{Metric, Point};
use crate::id::UnixMillis;

/// How a field is written (Protocol Buffers, "Encoding").
#[derive(Clone, Copy)]
enum Kind {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;

/// A message that is being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint_raw(&mut self, mut value: u64) {
        while let Ok(low) = u8::try_from(value & 0x7f)
            && value > 0x7f
        {
            self.0.push(low | 0x80);
            value >>= 7;
        }
        self.0.extend(u8::try_from(value));
    }

    fn tag(&mut self, field: u64, kind: Kind) {
        self.varint_raw((field << 3) | kind as u64);
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.tag(field, Kind::Bytes);
        self.varint_raw(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn messages(self, field: u64, messages: impl Iterator<Item = Self>) -> Self {
        messages.fold(self, |whole, message| whole.message(field, &message))
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn varint(mut self, field: u64, value: u64) -> Self {
        self.tag(field, Kind::Varint);
        self.varint_raw(value);
        self
    }

    fn fixed64(mut self, field: u64, bits: u64) -> Self {
        self.tag(field, Kind::Fixed64);
        self.0.extend_from_slice(&bits.to_le_bytes());
        self
    }
}

/// A request with one resource, which `about` describes.
pub(super) fn request(about: &[(String, String)], metrics: &[Metric], now: UnixMillis) -> Vec<u8> {
    let of_resource = about.iter().map(|(key, value)| attribute(key, value));
    let resource = Message::default().messages(1, of_resource);
    let scope = Message::default().text(1, "sealift").text(2, env!("CARGO_PKG_VERSION"));
    let metrics = metrics.iter().map(|of| metric(of, now));
    let in_scope = Message::default().message(1, &scope).messages(2, metrics);
    let of_resource = Message::default().message(1, &resource).message(2, &in_scope);
    Message::default().message(1, &of_resource).0
}

fn metric(metric: &Metric, now: UnixMillis) -> Message {
    let points = metric.points.iter().map(|of| point(of, metric.is_counter, now));
    let points = Message::default().messages(1, points);
    let named = Message::default().text(1, &metric.name).text(2, &metric.help);
    if metric.is_counter {
        return named.message(7, &points.varint(2, CUMULATIVE).varint(3, 1));
    }
    named.message(5, &points)
}

fn point(point: &Point, is_counter: bool, now: UnixMillis) -> Message {
    let labels = point.labels.iter().map(|(key, value)| attribute(key, value));
    let mut message = Message::default();
    if is_counter {
        message = message.fixed64(2, nanos(point.since));
    }
    let message = message.fixed64(3, nanos(now)).fixed64(4, point.value.to_bits());
    message.messages(7, labels)
}

fn attribute(key: &str, value: &str) -> Message {
    Message::default().text(1, key).message(2, &Message::default().text(1, value))
}

fn nanos(at: UnixMillis) -> u64 {
    at.0.max(0).unsigned_abs().saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_many_groups_of_seven_bits_as_they_need() {
        for (value, bytes) in
            [(0_u64, &[0][..]), (127, &[127]), (128, &[0x80, 1]), (300, &[0xac, 2])]
        {
            let mut message = Message::default();
            message.varint_raw(value);
            assert_eq!(message.0, bytes, "{value}");
        }
    }
}
