//! A runner that was broken into: in the place of its module runs machine code of our choice, after
//! the process was locked, as if the sandbox of the module had a hole.
//!
//! The native code of a module is overwritten behind a constant that it contains. Each attempt is
//! one system call, whose error is the error code that the module gives.
#![cfg(target_arch = "x86_64")]

use crate::common::infer;
use crate::workshop::{Workshop, bounded, input};
use sandpiper_agent::runner::{End, Runner, RunnerError};
use std::fmt::Write as _;

/// Found in the machine code: our own begins behind it.
const MARK: i32 = 0x5afe_c0de;

/// Argument of a system call.
enum Arg<'a> {
    Number(u64),
    /// The address of these bytes.
    Bytes(&'a [u8]),
    /// The id of the parent of the process.
    Parent,
}
use Arg::{Bytes, Number, Parent};

/// `mov` of 64 bits into rdi, rsi, rdx, r10, r8, r9: where Linux takes arguments from.
const MOV: [[u8; 2]; 6] = [
    [0x48, 0xbf],
    [0x48, 0xbe],
    [0x48, 0xba],
    [0x49, 0xba],
    [0x49, 0xb8],
    [0x49, 0xb9],
];
/// `lea` from an address relative to the next instruction, into the same registers.
const LEA: [[u8; 3]; 6] = [
    [0x48, 0x8d, 0x3d],
    [0x48, 0x8d, 0x35],
    [0x48, 0x8d, 0x15],
    [0x4c, 0x8d, 0x15],
    [0x4c, 0x8d, 0x05],
    [0x4c, 0x8d, 0x0d],
];
/// `mov` from rax into the same registers.
const FROM_RAX: [[u8; 3]; 6] = [
    [0x48, 0x89, 0xc7],
    [0x48, 0x89, 0xc6],
    [0x48, 0x89, 0xc2],
    [0x49, 0x89, 0xc2],
    [0x49, 0x89, 0xc0],
    [0x49, 0x89, 0xc1],
];
/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `neg eax; mov rsp, rbp; pop rbp; ret`: gives the error back and leaves the function.
const LEAVE: [u8; 7] = [0xf7, 0xd8, 0x48, 0x89, 0xec, 0x5d, 0xc3];

/// Machine code that makes one system call and returns its error; 0 if it succeeded with 0.
fn machine_code(call: i64, args: &[Arg<'_>]) -> Vec<u8> {
    let mut code = Vec::new();
    let mut data: Vec<u8> = Vec::new();
    let mut addresses = Vec::new();
    for (register, arg) in args.iter().enumerate() {
        match arg {
            Number(n) => {
                code.extend(MOV[register]);
                code.extend(n.to_le_bytes());
            }
            Bytes(bytes) => {
                code.extend(LEA[register]);
                addresses.push((code.len(), data.len()));
                code.extend([0; 4]);
                data.extend(*bytes);
            }
            Parent => {
                code.extend(number_of(libc::SYS_getppid));
                code.extend(SYSCALL);
                code.extend(FROM_RAX[register]);
            }
        }
    }
    code.extend(number_of(call));
    code.extend(SYSCALL);
    code.extend(LEAVE);
    for (place, offset) in addresses {
        let distance = i32::try_from(code.len() + offset - (place + 4)).unwrap();
        code[place..place + 4].copy_from_slice(&distance.to_le_bytes());
    }
    code.extend(data);
    code
}

/// `mov eax, call`.
fn number_of(call: i64) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(i32::try_from(call).unwrap().to_le_bytes());
    code
}

/// A module with the mark, and room behind it.
fn victim() -> String {
    let mut body = format!("(i32.store offset=2048 (local.get $i) (i32.const {MARK}))");
    for k in 0..100 {
        let at = 2052 + 4 * k;
        write!(
            body,
            "(i32.store offset={at} (local.get $i) (i32.const {}))",
            at * 7919
        )
        .unwrap();
    }
    infer(1, &(body + "(i32.const 0)"))
}

struct Burglar {
    shop: Workshop,
    native: Vec<u8>,
    place: usize,
}

impl Burglar {
    fn new() -> Self {
        let shop = Workshop::new();
        let spec = shop.spec("victim", &victim(), &bounded());
        let native = std::fs::read(&spec.native).unwrap();
        let mark = MARK.to_le_bytes();
        let places: Vec<usize> = (0..native.len() - 4)
            .filter(|&k| native[k..k + 4] == mark)
            .collect();
        assert_eq!(places.len(), 1, "the mark is there once");
        Self {
            shop,
            native,
            place: places[0] + 4,
        }
    }

    /// Has a locked runner make one system call.
    async fn attempt(&self, call: i64, args: &[Arg<'_>]) -> Outcome {
        let code = machine_code(call, args);
        let mut native = self.native.clone();
        native[self.place..self.place + code.len()].copy_from_slice(&code);
        let mut spec = self.shop.spec("broken", &victim(), &bounded());
        spec.native = self.shop.path("broken");
        std::fs::write(&spec.native, &native).unwrap();
        let runner = Runner::spawn(spec).await.unwrap();
        match runner.infer(1, input()).await {
            Ok(_) => Outcome::Succeeded,
            Err(RunnerError::Code(errno)) if errno < 0 => Outcome::Succeeded,
            Err(RunnerError::Code(errno)) => Outcome::Failed(errno),
            Err(RunnerError::Ended(End::Killed { signal })) => Outcome::Killed(signal),
            Err(other) => panic!("{other}"),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    /// The call gave no error.
    Succeeded,
    /// With this error.
    Failed(i32),
    /// The process was ended by this signal.
    Killed(i32),
}

const KILLED: Outcome = Outcome::Killed(libc::SIGSYS);
const REFUSED: Outcome = Outcome::Failed(libc::EPERM);

#[tokio::test]
async fn machine_code_of_our_choice_does_run() {
    let burglar = Burglar::new();
    // What a runner may do succeeds, so that the refusals below are refusals.
    let pid = burglar.attempt(libc::SYS_getpid, &[]).await;
    assert_eq!(pid, Outcome::Succeeded);
    let said = [Number(2), Bytes(b"broken into\n"), Number(12)];
    assert_eq!(
        burglar.attempt(libc::SYS_write, &said).await,
        Outcome::Succeeded
    );
}

#[tokio::test]
async fn it_opens_no_file_and_no_socket() {
    let burglar = Burglar::new();
    let cwd = Number(libc::AT_FDCWD as u64);
    let [read, write] = [0, libc::O_CREAT | libc::O_RDWR].map(|f| Number(f as u64));
    let passwd = b"/etc/passwd\0";
    let open = [cwd, Bytes(passwd), read];
    assert_eq!(burglar.attempt(libc::SYS_openat, &open).await, REFUSED);
    let open = [Bytes(passwd), Number(0)];
    assert_eq!(burglar.attempt(libc::SYS_open, &open).await, REFUSED);
    let made = burglar.shop.path("made");
    let name = [made.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let make = [
        Number(libc::AT_FDCWD as u64),
        Bytes(&name),
        write,
        Number(0o600),
    ];
    assert_eq!(burglar.attempt(libc::SYS_openat, &make).await, REFUSED);
    assert!(!made.exists());
    let in_memory = [Bytes(b"x\0"), Number(0)];
    assert_eq!(
        burglar.attempt(libc::SYS_memfd_create, &in_memory).await,
        REFUSED
    );
    for family in [libc::AF_INET, libc::AF_UNIX, libc::AF_NETLINK] {
        let socket = [
            Number(family as u64),
            Number(libc::SOCK_STREAM as u64),
            Number(0),
        ];
        assert_eq!(burglar.attempt(libc::SYS_socket, &socket).await, KILLED);
    }
    let ring = [Number(8), Bytes(&[0; 120])];
    assert_eq!(
        burglar.attempt(libc::SYS_io_uring_setup, &ring).await,
        KILLED
    );
}

#[tokio::test]
async fn it_starts_no_program_and_no_process() {
    let burglar = Burglar::new();
    let program = [Bytes(b"/bin/sh\0"), Number(0), Number(0)];
    assert_eq!(burglar.attempt(libc::SYS_execve, &program).await, KILLED);
    assert_eq!(burglar.attempt(libc::SYS_fork, &[]).await, KILLED);
    let process = [Number(libc::SIGCHLD as u64), Number(0)];
    assert_eq!(burglar.attempt(libc::SYS_clone, &process).await, KILLED);
}

#[tokio::test]
async fn it_reaches_neither_its_parent_nor_anyone_else() {
    let burglar = Burglar::new();
    let own = u64::from(std::process::id());
    let signal = libc::SIGKILL as u64;
    let kill = [Number(own), Number(signal)];
    assert_eq!(burglar.attempt(libc::SYS_kill, &kill).await, KILLED);
    let thread = [Number(own), Number(own), Number(signal)];
    assert_eq!(burglar.attempt(libc::SYS_tgkill, &thread).await, REFUSED);
    let thread = [Number(own), Number(signal)];
    assert_eq!(burglar.attempt(libc::SYS_tkill, &thread).await, REFUSED);
    let attach = [Number(libc::PTRACE_ATTACH.into()), Number(own)];
    assert_eq!(burglar.attempt(libc::SYS_ptrace, &attach).await, KILLED);
    let memory = [
        Number(own),
        Number(0),
        Number(0),
        Number(0),
        Number(0),
        Number(0),
    ];
    assert_eq!(
        burglar.attempt(libc::SYS_process_vm_readv, &memory).await,
        KILLED
    );
    // It does not even learn who its parent is.
    let kill = [Parent, Number(signal)];
    assert_eq!(burglar.attempt(libc::SYS_kill, &kill).await, KILLED);
    let limit = [Parent, Number(7), Bytes(&[0; 16]), Number(0)];
    assert_eq!(burglar.attempt(libc::SYS_prlimit64, &limit).await, REFUSED);
}

#[tokio::test]
async fn it_makes_no_new_code_and_undoes_no_measure() {
    let burglar = Burglar::new();
    let [all, private] = [
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u64,
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64,
    ];
    let map = [
        Number(0),
        Number(4096),
        Number(all),
        Number(private),
        Number(u64::MAX),
        Number(0),
    ];
    assert_eq!(burglar.attempt(libc::SYS_mmap, &map).await, REFUSED);
    for (option, value) in [(libc::PR_SET_DUMPABLE, 1), (libc::PR_SET_PDEATHSIG, 0)] {
        let undo = [Number(option as u64), Number(value)];
        assert_eq!(burglar.attempt(libc::SYS_prctl, &undo).await, REFUSED);
    }
    let limit = [Number(libc::RLIMIT_NOFILE.into()), Bytes(&[1; 16])];
    assert_eq!(burglar.attempt(libc::SYS_setrlimit, &limit).await, REFUSED);
    let namespace = [Number(libc::CLONE_NEWUSER as u64)];
    assert_eq!(burglar.attempt(libc::SYS_unshare, &namespace).await, KILLED);
}
