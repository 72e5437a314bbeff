//! Starts runners from one thread that lives as long as the agent.
//!
//! A runner asks the kernel to kill it when its parent dies, and to the kernel the parent is the
//! *thread* that started it. Threads of an asynchronous runtime come and go.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Job {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

static SPAWNER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// Starts a process. The runtime of the caller drives its pipes.
pub(super) async fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = oneshot::channel();
    send(Job {
        command,
        runtime: Handle::current(),
        reply,
    })?;
    answer
        .await
        .map_err(|_| io::Error::other("the thread that starts processes has ended"))?
}

fn send(job: Job) -> io::Result<()> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = match &*spawner {
        Some(sender) => sender,
        None => {
            let (sender, jobs) = channel();
            std::thread::Builder::new()
                .name("spawner".into())
                .spawn(move || work(&jobs))?;
            &*spawner.insert(sender)
        }
    };
    sender
        .send(job)
        .map_err(|_| io::Error::other("the thread that starts processes has ended"))
}

fn work(jobs: &Receiver<Job>) {
    // The sender is static: this ends with the process.
    while let Ok(mut job) = jobs.recv() {
        let entered = job.runtime.enter();
        let child = job.command.spawn();
        drop(entered);
        // A caller that gave up has dropped its end, and with the child it is killed.
        let _ = job.reply.send(child);
    }
}
