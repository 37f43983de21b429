//! Durations as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BadQuantity;

/// A span of time: `500ms`, `10s`, `1h30m`; a bare number counts seconds.
///
/// Units are `ms`, `s`, `m`, `h` and `d`. Printed exactly, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(pub Duration);

/// Milliseconds of each unit, largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const WHAT: &str = "duration: write 500ms, 10s, 5m, 1h30m or a number of seconds";

impl FromStr for HumanDuration {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity { text: text.to_owned(), what: WHAT };
        let millis = parse_millis(text.trim()).ok_or_else(bad)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

fn parse_millis(text: &str) -> Option<u64> {
    if let Ok(secs) = text.parse::<u64>() {
        return secs.checked_mul(1000);
    }
    let (mut rest, mut total, mut above) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        // `1m1h` and `1s1s` are mistakes more likely than wishes.
        if *unit >= above {
            return None;
        }
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*unit)?)?;
        (rest, above) = (tail, *unit);
    }
    (above != u64::MAX).then_some(total)
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return formatter.write_str("0s");
        }
        for (name, unit) in UNITS {
            if millis >= unit {
                write!(formatter, "{}{name}", millis / unit)?;
                millis %= unit;
            }
        }
        Ok(())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HumanDurationVisitor)
    }
}

struct HumanDurationVisitor;

impl Visitor<'_> for HumanDurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a duration such as \"10s\", or a number of seconds")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, secs: u64) -> Result<HumanDuration, E> {
        Ok(HumanDuration(Duration::from_secs(secs)))
    }

    fn visit_i64<E: de::Error>(self, secs: i64) -> Result<HumanDuration, E> {
        let refused = |_| E::invalid_value(de::Unexpected::Signed(secs), &self);
        u64::try_from(secs).map(Duration::from_secs).map(HumanDuration).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("0", 0),
            ("10", 10_000),
            ("500ms", 500),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1d1ms", 86_400_001),
        ] {
            let expected = HumanDuration(Duration::from_millis(millis));
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let refused =
            ["", "s", "-1s", "1.5s", "1m1h", "1s1s", "10 parsecs", "1s2", "99999999999999999d"];
        for text in refused {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(millis: u64, shift in 0..60_u32) {
            let duration = HumanDuration(Duration::from_millis(millis >> shift));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }
}
