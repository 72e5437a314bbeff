//! Deliberate mistakes. The simulation must catch each of them, which shows that its invariants
//! can fail. They exist only with the feature `mutants`, which nothing that is installed enables;
//! without it every question whether a mistake is made is answered `false` at compile time.

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A deliberate mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])* $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What goes wrong, in words.
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

mutants! {
    /// A device does not write its state down.
    SkipPersist,
    /// A device takes an assignment of an older generation.
    AcceptOlder,
    /// A device takes the assignment of another device.
    AcceptForeign,
    /// The controller changes an assignment without a new generation.
    SameGeneration,
    /// The controller does not write a new assignment down.
    ForgetAssignment,
    /// The controller does not write down where a device stands in a rollout.
    ForgetProgress,
    /// Devices that say nothing until the deadline of their wave are let pass.
    SilenceIsSuccess,
    /// A device succeeds as soon as it is seen serving.
    SkipBake,
    /// A device succeeds without having served anything.
    SkipInferences,
    /// The bound on devices in flight is forgotten.
    ForgetInFlight,
    /// The disruption budget counts one too few.
    BudgetOffByOne,
    /// Devices that fail are not counted.
    ForgetCount,
    /// Failures do not stop a wave.
    IgnoreFailures,
    /// A rollback takes only the newest wave back.
    RollBackOneWave,
    /// Every gate passes.
    GatesPass,
    /// A paused rollout goes on.
    PauseGoesOn,
    /// A wave that asks for approval begins without it.
    SkipApproval,
    /// A phase of a device has no end.
    EndlessPhase,
    /// Devices are told to move while their download window is shut.
    TellAnytime,
    /// A device fetches while its download window is shut.
    FetchAnytime,
    /// A device switches while its window is shut.
    SwitchAnytime,
    /// A device judges windows by its own clock.
    TrustAnyClock,
    /// Bytes are sent whatever the budgets of bandwidth say.
    ForgetBandwidth,
    /// A wave has no deadline.
    NoDeadline,
    /// A newer rollout leaves the older one running.
    TwoRollouts,
    /// A report that was made before the newest assignment arrived counts for it.
    CountStaleReports,
    /// What a device says that it serves is believed without its digest.
    BelieveEverything,
    /// Windows that come again are counted again.
    CountTwice,
    /// The version that serves is deleted from the disk of a device.
    CollectActive,
    /// Code that failed is tried again.
    RetryFailed,
    /// What a disk that failed kept a device from doing is never done.
    ForgetBacklog,
    /// What a device served under an earlier assignment counts for the newest.
    CountOldWindows,
    /// Requests are sent to a runner that is not ready.
    RouteEarly,
}

#[cfg(feature = "mutants")]
mod active {
    use super::Mutant;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static ACTIVE: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Makes one mistake from now on, or none, in the whole process.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.store(mutant.map_or(usize::MAX, |m| m as usize), Ordering::SeqCst);
    }

    /// Whether this mistake is made.
    pub fn is(mutant: Mutant) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutant as usize
    }
}

#[cfg(feature = "mutants")]
pub use active::{activate, is};

#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
