//! When a second replica is asked for what another one owes, as users write it: `50ms..400ms`, or `off`.

use std::str::FromStr;
use std::time::Duration;

use doldam_client::ClientConfig;
use doldam_runtime::config::HumanDuration;
use serde::Deserialize;

const RULE: &str = "hedge is `off`, or the shortest and the longest delay, such as 50ms..400ms";

/// Whether, and from when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum HedgeChoice {
    /// Never.
    Off,
    /// After so long at the earliest, and at the latest.
    After { min: Duration, max: Duration },
}

impl FromStr for HedgeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let (min, max) = text.split_once("..").ok_or(RULE)?;
        let delay = |text: &str| match text.parse::<HumanDuration>() {
            Ok(HumanDuration(delay)) => Ok(delay),
            Err(error) => Err(format!("{error}; {RULE}")),
        };
        let (min, max) = (delay(min)?, delay(max)?);
        if min > max || max.is_zero() {
            return Err(format!("{max:?} is 0 or below {min:?}; {RULE}"));
        }
        Ok(Self::After { min, max })
    }
}

impl TryFrom<String> for HedgeChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl HedgeChoice {
    /// Puts it into the settings of a client.
    pub(crate) fn apply(self, config: &mut ClientConfig) {
        match self {
            Self::Off => config.hedged_reads = false,
            Self::After { min, max } => {
                config.hedged_reads = true;
                (config.hedge_delay_min, config.hedge_delay_max) = (min, max);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_off_or_two_delays_in_order() {
        let (min, max) = (Duration::from_millis(20), Duration::from_secs(1));
        assert_eq!("20ms..1s".parse(), Ok(HedgeChoice::After { min, max }));
        assert_eq!("1s..1s".parse(), Ok(HedgeChoice::After { min: max, max }));
        assert_eq!("off".parse(), Ok(HedgeChoice::Off));
        for bad in ["", "on", "20ms", "..", "1s..20ms", "0s..0s", "20ms..", "20ms..1s..2s"] {
            let refused = bad.parse::<HedgeChoice>().unwrap_err();
            assert!(refused.contains("such as 50ms..400ms"), "{bad}: {refused}");
        }
    }

    #[test]
    fn a_choice_goes_into_the_settings() {
        let mut config = ClientConfig::default();
        HedgeChoice::Off.apply(&mut config);
        assert!(!config.hedged_reads);
        let (min, max) = (Duration::from_millis(1), Duration::from_secs(9));
        HedgeChoice::After { min, max }.apply(&mut config);
        let found = (config.hedged_reads, config.hedge_delay_min, config.hedge_delay_max);
        assert_eq!(found, (true, min, max));
    }
}
