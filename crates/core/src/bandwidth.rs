//! Budgets of bandwidth: who may send how much now, shared fairly.
//!
//! A budget is a token bucket: bytes come at its rate and are kept for a second. Whoever sends asks
//! for each piece, under every budget that it falls under, and waits until all have as much. Devices
//! take turns piece by piece, however many downloads one has; a device whose own budget is used up
//! does not hold up those of other sites.

use crate::chunks::CHUNK_BYTES;
use crate::mutants::{self, Mutant};
use crate::names::DeviceName;
use crate::policy::{LabelError, check_label_key};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The least of a budget, in bytes per second: less would let a piece wait for longer than a minute.
pub const MIN_BYTES_PER_S: u64 = 1_024;
/// The most: a thousand gigabytes per second stand for no bound.
pub const MAX_BYTES_PER_S: u64 = 1_000_000_000_000;

/// Levels are kept in thousandths of a byte, so that no time is too short to count.
const SCALE: u64 = 1_000;

/// A budget that something falls under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Budget {
    /// Its name: all that fall under one of this name share it.
    pub name: Arc<str>,
    /// Its rate.
    pub bytes_per_s: u64,
}

/// Budgets of a rollout, or of a whole controller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bandwidth {
    /// Of all devices together, in bytes per second; no bound when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
    /// Of those with one value of a label, for each value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_group: Option<GroupBandwidth>,
}

/// What devices with one value of a label share. Those without it are a group of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupBandwidth {
    /// Key of the label.
    pub group_by: String,
    /// For each of its values, in bytes per second.
    pub bytes_per_s: u64,
}

impl Bandwidth {
    /// The budgets of a device with this value of the label.
    pub fn budgets(&self, of: &str, group: Option<&str>) -> Vec<Budget> {
        let all = self.bytes_per_s.map(|bytes_per_s| Budget {
            name: of.into(),
            bytes_per_s,
        });
        let group = self.per_group.as_ref().map(|per| Budget {
            name: match group {
                Some(value) => format!("{of}, {}={value}", per.group_by).into(),
                None => format!("{of}, without {}", per.group_by).into(),
            },
            bytes_per_s: per.bytes_per_s,
        });
        all.into_iter().chain(group).collect()
    }
}

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rate: write bytes per second such as 500kB, 10MB or 2MiB, from 1024 on")]
pub struct RateError(String);

/// Bytes per second from a text such as `10MB`.
///
/// # Errors
/// [`RateError`].
pub fn parse_rate(text: &str) -> Result<u64, RateError> {
    let bad = || RateError(text.chars().take(80).collect());
    let plain = text.strip_suffix("/s").unwrap_or(text);
    let digits = plain.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = plain.split_at(digits.unwrap_or(plain.len()));
    let unit = match unit {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(bad()),
    };
    let rate = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    let within = |rate: &u64| (MIN_BYTES_PER_S..=MAX_BYTES_PER_S).contains(rate);
    rate.filter(within).ok_or_else(bad)
}

/// A text that is no budget of groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupRateError {
    /// Not a label and a rate.
    #[error("`{0}` is not a label and a rate: write site=1MB")]
    Form(String),
    /// The key is none.
    #[error(transparent)]
    Key(#[from] LabelError),
    /// The rate is none.
    #[error(transparent)]
    Rate(#[from] RateError),
}

impl std::str::FromStr for GroupBandwidth {
    type Err = GroupRateError;
    /// `LABEL=RATE`, such as `site=1MB`.
    fn from_str(text: &str) -> Result<Self, GroupRateError> {
        let form = || GroupRateError::Form(text.chars().take(80).collect());
        let (key, rate) = text.split_once('=').ok_or_else(form)?;
        check_label_key(key)?;
        Ok(Self {
            group_by: key.to_owned(),
            bytes_per_s: parse_rate(rate)?,
        })
    }
}

/// Number of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Bucket {
    bytes_per_s: u64,
    level: u64,
    filled_at: Millis,
}

impl Bucket {
    /// A second of its rate, and at least a piece.
    fn burst(&self) -> u64 {
        self.bytes_per_s.max(CHUNK_BYTES as u64)
    }

    fn fill(&mut self, now: Millis) {
        let passed = u64::try_from(now.since(self.filled_at).as_millis()).unwrap_or(u64::MAX);
        let most = self.burst().saturating_mul(SCALE);
        let gain = passed.saturating_mul(self.bytes_per_s);
        self.level = self.level.saturating_add(gain).min(most);
        // A clock that was set back gives nothing and takes nothing.
        self.filled_at = now;
    }

    /// Milliseconds until so much is there.
    fn wait_ms(&self, cost: u64) -> u64 {
        cost.saturating_sub(self.level).div_ceil(self.bytes_per_s)
    }
}

#[derive(Debug)]
struct Request {
    device: DeviceName,
    cost: u64,
    lane: Vec<Arc<str>>,
    round: u64,
}

/// Requests under budgets. Those under the same budgets stand in one lane, in the order of their
/// rounds: the second request of a device comes in the round after its first.
#[derive(Debug, Default)]
pub struct Shaper {
    buckets: BTreeMap<Arc<str>, Bucket>,
    requests: BTreeMap<Ticket, Request>,
    lanes: BTreeMap<Vec<Arc<str>>, BTreeSet<(u64, Ticket)>>,
    /// Newest round of every device that asked lately.
    rounds: BTreeMap<DeviceName, u64>,
    /// Round of what was granted last.
    round: u64,
    last: u64,
}

impl Shaper {
    /// A device asks to be sent so many bytes, at most a piece of [`CHUNK_BYTES`]. [`Shaper::poll`]
    /// says when it may be.
    pub fn ask(
        &mut self,
        now: Millis,
        device: &DeviceName,
        budgets: &[Budget],
        bytes: usize,
    ) -> Ticket {
        for budget in budgets {
            let bytes_per_s = budget.bytes_per_s.clamp(MIN_BYTES_PER_S, MAX_BYTES_PER_S);
            let bucket = self.buckets.entry(Arc::clone(&budget.name));
            let bucket = bucket.or_insert_with(|| Bucket {
                bytes_per_s,
                level: bytes_per_s.max(CHUNK_BYTES as u64).saturating_mul(SCALE),
                filled_at: now,
            });
            bucket.fill(now);
            bucket.bytes_per_s = bytes_per_s;
        }
        let next = self.rounds.get(device).map_or(0, |last| last + 1);
        let round = next.max(self.round);
        self.rounds.insert(device.clone(), round);
        self.last += 1;
        let ticket = Ticket(self.last);
        let lane: Vec<_> = budgets.iter().map(|b| Arc::clone(&b.name)).collect();
        let line = self.lanes.entry(lane.clone()).or_default();
        line.insert((round, ticket));
        let cost = (bytes.min(CHUNK_BYTES) as u64).saturating_mul(SCALE);
        let device = device.clone();
        self.requests.insert(
            ticket,
            Request {
                device,
                cost,
                lane,
                round,
            },
        );
        ticket
    }

    /// Whoever asked has gone.
    pub fn forget(&mut self, ticket: Ticket) {
        self.leave(ticket);
    }

    fn leave(&mut self, ticket: Ticket) -> Option<Request> {
        let request = self.requests.remove(&ticket)?;
        if let Some(line) = self.lanes.get_mut(&request.lane) {
            line.remove(&(request.round, ticket));
            if line.is_empty() {
                self.lanes.remove(&request.lane);
            }
        }
        Some(request)
    }

    /// How long the first of a lane waits, in milliseconds.
    fn wait_ms(&self, ticket: Ticket) -> Option<u64> {
        let request = self.requests.get(&ticket)?;
        if mutants::is(Mutant::ForgetBandwidth) {
            return Some(0);
        }
        let buckets = request
            .lane
            .iter()
            .filter_map(|name| self.buckets.get(name));
        Some(buckets.map(|b| b.wait_ms(request.cost)).max().unwrap_or(0))
    }

    /// What may be sent now, in the order in which it is to be.
    pub fn poll(&mut self, now: Millis) -> Vec<Ticket> {
        self.buckets
            .values_mut()
            .for_each(|bucket| bucket.fill(now));
        let mut granted = Vec::new();
        loop {
            let firsts = self.lanes.values().filter_map(|line| line.first());
            let free = firsts.filter(|(_, ticket)| self.wait_ms(*ticket) == Some(0));
            let Some((round, ticket)) = free.min().copied() else {
                break;
            };
            self.round = self.round.max(round);
            let Some(request) = self.leave(ticket) else {
                break;
            };
            for name in &request.lane {
                if let Some(bucket) = self.buckets.get_mut(name) {
                    bucket.level = bucket.level.saturating_sub(request.cost);
                }
            }
            granted.push(ticket);
        }
        self.tidy();
        granted
    }

    /// When something may be sent that may not be now.
    pub fn next_deadline(&self, now: Millis) -> Option<Millis> {
        let firsts = self.lanes.values().filter_map(|line| line.first());
        let wait = firsts
            .filter_map(|(_, ticket)| self.wait_ms(*ticket))
            .min()?;
        Some(now.plus(Duration::from_millis(wait.max(1))))
    }

    /// Forgets devices whose turn is over and budgets that are whole and that nobody waits for.
    fn tidy(&mut self) {
        let round = self.round;
        self.rounds.retain(|_, last| *last >= round);
        let lanes = &self.lanes;
        let used = |name: &Arc<str>| lanes.keys().any(|lane| lane.contains(name));
        let whole = |b: &Bucket| b.level >= b.burst().saturating_mul(SCALE);
        self.buckets.retain(|name, b| !whole(b) || used(name));
    }

    /// Devices whose requests wait.
    pub fn waiting(&self) -> BTreeSet<&DeviceName> {
        self.requests
            .values()
            .map(|request| &request.device)
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIECE: usize = CHUNK_BYTES;
    const RATE: u64 = CHUNK_BYTES as u64;

    fn device(number: usize) -> DeviceName {
        DeviceName::new(format!("pi-{number}")).unwrap()
    }

    fn budget(name: &str, pieces_per_s: u64) -> Budget {
        Budget {
            name: name.into(),
            bytes_per_s: pieces_per_s * RATE,
        }
    }

    #[test]
    fn devices_take_turns_however_many_downloads_one_has() {
        let mut shaper = Shaper::default();
        let all = [budget("all", 1)];
        let greedy: Vec<_> = (0..4)
            .map(|_| shaper.ask(Millis(0), &device(0), &all, PIECE))
            .collect();
        let modest = shaper.ask(Millis(0), &device(1), &all, PIECE);
        assert_eq!(shaper.poll(Millis(0)), [greedy[0]]);
        assert_eq!(shaper.next_deadline(Millis(0)), Some(Millis(1_000)));
        assert_eq!(shaper.poll(Millis(999)), []);
        assert_eq!(shaper.poll(Millis(1_000)), [modest]);
        // Who asks again comes before the third piece of the greedy one.
        let again = shaper.ask(Millis(1_500), &device(1), &all, PIECE);
        assert_eq!(shaper.poll(Millis(2_000)), [greedy[1]]);
        assert_eq!(shaper.poll(Millis(3_000)), [again]);
        shaper.forget(greedy[2]);
        assert_eq!(shaper.poll(Millis(4_000)), [greedy[3]]);
        assert_eq!(shaper.next_deadline(Millis(4_000)), None);
    }

    #[test]
    fn a_site_that_has_used_up_its_own_does_not_hold_up_another() {
        let mut shaper = Shaper::default();
        let of = |site: &str| [budget("all", 4), budget(site, 1)];
        let tickets: Vec<_> = (0..3)
            .map(|n| shaper.ask(Millis(0), &device(n), &of("lab"), PIECE))
            .collect();
        let other = shaper.ask(Millis(0), &device(9), &of("shop"), PIECE);
        assert_eq!(shaper.poll(Millis(0)), [tickets[0], other]);
        assert_eq!(shaper.poll(Millis(1_000)), [tickets[1]]);
    }

    #[test]
    fn rates_are_texts() {
        for (text, rate) in [
            ("500kB", 500_000),
            ("10MB/s", 10_000_000),
            ("2MiB", 2 << 20),
            ("4096", 4096),
        ] {
            assert_eq!(parse_rate(text), Ok(rate));
        }
        for bad in ["", "MB", "10mb", "1B", "1.5MB", "-1MB", "99999999GB"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        let site: GroupBandwidth = "site=2MB".parse().unwrap();
        assert_eq!(
            (site.group_by.as_str(), site.bytes_per_s),
            ("site", 2_000_000)
        );
        for bad in ["site", "site=0", "=1MB", "site=fast"] {
            assert!(bad.parse::<GroupBandwidth>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// In any stretch of time at most the rate times the time and one burst pass, and nobody
        /// waits for ever.
        #[test]
        fn no_budget_is_exceeded(
            pieces_per_s in 1u64..5,
            steps in prop::collection::vec((0usize..4, 0u64..700, 1usize..=PIECE), 1..80),
        ) {
            let mut shaper = Shaper::default();
            let budgets = [budget("all", pieces_per_s)];
            let rate = pieces_per_s * RATE;
            let (mut now, mut sizes) = (0, BTreeMap::new());
            let mut sent: Vec<(u64, u64)> = Vec::new();
            let mut take = |shaper: &mut Shaper, now: u64, sizes: &mut BTreeMap<Ticket, u64>| {
                for ticket in shaper.poll(Millis(now)) {
                    sent.push((now, sizes.remove(&ticket).unwrap()));
                }
            };
            for (number, wait, bytes) in steps {
                now += wait;
                let ticket = shaper.ask(Millis(now), &device(number), &budgets, bytes);
                sizes.insert(ticket, bytes as u64);
                take(&mut shaper, now, &mut sizes);
            }
            while let Some(at) = shaper.next_deadline(Millis(now)) {
                prop_assert!(at.0 > now);
                now = at.0;
                take(&mut shaper, now, &mut sizes);
            }
            prop_assert!(sizes.is_empty());
            for (index, (from, _)) in sent.iter().enumerate() {
                let mut bytes = 0;
                for (to, more) in &sent[index..] {
                    bytes += more;
                    let most = rate * (to - from) / 1_000 + rate.max(RATE) + 1;
                    prop_assert!(bytes <= most, "{bytes} of {most} from {from} to {to}");
                }
            }
        }
    }
}
