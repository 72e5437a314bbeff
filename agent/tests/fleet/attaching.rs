//! The stream to the controller over renewals, new knowledge and refusals.

use crate::controller::Controller;
use crate::eventually;
use sandpiper_agent::attach::Attachment;
use sandpiper_agent::driver::{Handle, Input};
use sandpiper_agent::fetcher::Patience;
use sandpiper_agent::identity::Identity;
use sandpiper_agent::telemetry::Ring;
use sandpiper_agent::{config::Config, probe};
use sandpiper_core::assignment::Generation;
use sandpiper_core::names::DeviceName;
use sandpiper_core::profile::DeviceProfile;
use sandpiper_core::telemetry::Observation;
use sandpiper_proto::convert::FromController;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

struct Setup {
    controller: Arc<Controller>,
    profile: watch::Sender<DeviceProfile>,
    channel: watch::Receiver<Option<Channel>>,
    inbox: mpsc::Receiver<Input>,
    _observation: watch::Sender<Observation>,
    dir: TempDir,
}

impl Setup {
    /// Joins with a certificate of this age and attaches.
    async fn new(age: Duration) -> Self {
        let controller = Controller::new();
        controller.desk().age = age;
        let (address, _) = controller.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let name = DeviceName::new("shed-1").unwrap();
        let token = controller.token(&address);
        let identity = Identity::join(dir.path(), &token, name).await.unwrap();
        let text = format!("state_dir = \"{}\"", dir.path().display());
        let config = Config::parse(&text).unwrap();
        let (profile, profiled) =
            watch::channel(probe::profile(&config, Vec::new(), BTreeMap::new()));
        let (observation, observed) = watch::channel(Observation {
            generation: Generation(0),
            conditions: probe::conditions(&config),
            models: Vec::new(),
            refused: None,
            agent: None,
        });
        let (inputs, inbox) = mpsc::channel(8);
        let (give, channel) = watch::channel(None);
        let ring = Ring::open(&dir.path().join("telemetry"), 1).unwrap();
        let attachment = Attachment {
            identity,
            state_dir: dir.path().to_owned(),
            driver: Handle {
                inputs,
                observation: observed,
                profile: profiled,
            },
            ring: Arc::new(Mutex::new(ring)),
            channel: give,
            patience: Patience {
                first: Duration::from_millis(10),
                longest: Duration::from_millis(300),
            },
        };
        tokio::spawn(attachment.run());
        Self {
            controller,
            profile,
            channel,
            inbox,
            _observation: observation,
            dir,
        }
    }

    async fn streams(&self, count: usize) {
        eventually("the device attaches", async || {
            (self.controller.desk().streams.len() >= count).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_certificate_past_half_of_its_life_is_renewed_while_the_stream_is_held() {
    let setup = Setup::new(Duration::from_secs(4 * 86_400)).await;
    setup.streams(2).await;
    // The old stream ends once the new one is there.
    let old = setup.controller.desk().streams[0].down.clone();
    old.closed().await;
    let live = setup.channel.borrow().is_some();
    assert!(live, "fetches had a connection all the time");
    let desk = setup.controller.desk();
    assert_eq!((desk.streams.len(), desk.renewals), (2, 1));
    let (first, second) = (&desk.streams[0], &desk.streams[1]);
    assert!(second.expires.unwrap() > first.expires.unwrap());
    assert_eq!(first.hello.boot_id, second.hello.boot_id);
    let kept = Identity::load(setup.dir.path()).unwrap();
    assert_eq!(kept.validity().unwrap().to, second.expires.unwrap());
}

#[tokio::test]
async fn what_is_learned_of_the_device_is_told_in_a_new_hello() {
    let setup = Setup::new(Duration::ZERO).await;
    setup.streams(1).await;
    setup.profile.send_modify(|p| {
        p.lockdown.insert("no_files".into(), "applied".into());
    });
    setup.streams(2).await;
    let desk = setup.controller.desk();
    assert_eq!(
        desk.streams[1].hello.profile.lockdown["no_files"],
        "applied"
    );
    assert_eq!(desk.renewals, 0);
}

#[tokio::test]
async fn a_device_that_is_not_wanted_comes_back_all_the_same() {
    let mut setup = Setup::new(Duration::ZERO).await;
    setup.streams(1).await;
    let reason = "revoked".to_owned();
    let end = FromController::Disconnect {
        reason,
        retry: false,
    };
    setup.controller.send(end).await;
    setup.streams(2).await;
    while let Ok(input) = setup.inbox.try_recv() {
        let told = matches!(input, Input::Attached(_));
        assert!(told, "nothing changes locally");
    }
}
