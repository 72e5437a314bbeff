//! The six devices of the demo. Their hardware is emulated, and every one says so.

use sandpiper_e2e::device::Hardware;

/// A device with the labels that it joins with.
pub(crate) struct Member {
    pub(crate) hardware: Hardware,
    pub(crate) labels: Vec<String>,
}

/// The device whose battery is drained.
pub(crate) const DRAINED: &str = "pi4-battery";

/// Boards as they are found in the field, from scarce to plenty.
pub(crate) fn members() -> Vec<Member> {
    let plain = Hardware::plain;
    let zero = Hardware {
        board: "Raspberry Pi Zero 2 W Rev 1.0",
        soc: "BCM2710A1",
        ram_mib: 512,
        // What a busy board of this size has left: the largest variants do not fit.
        free_mib: 6,
        ..plain("zero2-tight")
    };
    let three = Hardware {
        board: "Raspberry Pi 3 Model B Rev 1.2",
        soc: "BCM2837",
        ram_mib: 1024,
        free_mib: 600,
        // Someone chose to keep integer arithmetic off this one.
        dtypes: &["f32"],
        ..plain("pi3-float")
    };
    let saver = Hardware {
        board: "Raspberry Pi Zero 2 W Rev 1.0",
        soc: "BCM2710A1",
        ram_mib: 512,
        free_mib: 300,
        battery_percent: Some(90),
        ..plain("zero2-solar")
    };
    let battery = Hardware {
        battery_percent: Some(85),
        ..plain(DRAINED)
    };
    let five = Hardware {
        board: "Raspberry Pi 5 Model B Rev 1.0",
        soc: "BCM2712",
        ram_mib: 8192,
        free_mib: 6000,
        ..plain("pi5-mains")
    };
    [zero, three, saver, battery, plain("pi4-mains"), five]
        .into_iter()
        .map(|hardware| {
            let goal = if hardware.name == "zero2-solar" {
                "saving"
            } else {
                "accuracy"
            };
            let labels = vec!["app=activity".to_owned(), format!("goal={goal}")];
            Member { hardware, labels }
        })
        .collect()
}
