//! The group `ffi`: a call from C against the same call from Rust. The C side is `benches/ffi/calls.c`, a program that is
//! linked with the shared library and asked over a pipe to make so many calls.

use core::hint::black_box;
use core::time::Duration;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use keytally::Verdict;

use crate::measure::{Bench, Contender, Yes, answered, asked};
use crate::tables::{gate, limiter};
use crate::traffic::{self, Order, ROOMY, START, Walk};

/// Where `cargo xtask bench` says that the C program is.
const PROGRAM: &str = "KEYTALLY_BENCH_C";

pub(crate) fn measure(bench: &mut Bench) {
    let Some(program) = std::env::var_os(PROGRAM) else {
        println!("ffi: `cargo xtask bench ffi` builds the program that this needs");
        return;
    };
    let title = "One subject, one key, by who calls";
    let about = "A check that is admitted, with its verdict: Rust's, which works a window out when it is asked for, and the \
                 struct of C, in which all are worked out.";
    let mut table = bench.table("ffi/calls", "ns", title, about);
    let clock = Walk::new(1, Order::Uniform).clock();

    // A table for each, whose times go on from one call to the next.
    let [bare, full] = [(); 2].map(|()| limiter(ROOMY, 1000));
    let (text, mut time, mut other_time) = (traffic::text(0), clock, clock);
    let rust = asked("Rust", Yes::All, || answered(&bare.check(black_box(text.as_bytes()), 1, time.next())));
    let whole =
        asked(WHOLE, Yes::All, || told(&full.check(black_box(text.as_bytes()), 1, other_time.next())));
    table.column("limiter", vec![rust, whole, from_c(&program, "limiter")]);

    let [(bare, bare_keys), (full, full_keys)] = [(); 2].map(|()| gate(ROOMY, 64));
    let [bare_key, full_key] = [&bare_keys, &full_keys].map(|keys| keys[0].0.as_bytes());
    assert!(
        bare.check(Some(bare_key), 1, START).admitted() && full.check(Some(full_key), 1, START).admitted()
    );
    let (mut time, mut other_time) = (clock, clock);
    let rust = asked("Rust", Yes::All, || answered(&bare.check(Some(black_box(bare_key)), 1, time.next())));
    let whole = asked(WHOLE, Yes::All, || told(&full.check(Some(black_box(full_key)), 1, other_time.next())));
    table.column("gate", vec![rust, whole, from_c(&program, "gate")]);
}

/// Who gets from Rust what C's struct tells.
const WHOLE: &str = "Rust, every window worked out";

/// Whether the verdict admits, and all else that C's struct tells of it.
#[inline(always)]
fn told(verdict: &Verdict) -> bool {
    for quota in verdict.quotas().iter() {
        black_box(quota);
    }
    black_box((verdict.holder(), verdict.retry_at(), verdict.charge()));
    answered(verdict)
}

fn from_c(program: &OsStr, what: &'static str) -> Contender<'static> {
    let mut calls = Calls::new(program);
    ("C, by the shared library", Box::new(move |times| calls.ask(what, times)))
}

/// The program in C.
struct Calls {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Calls {
    fn new(program: &OsStr) -> Self {
        let mut command = Command::new(program);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { input: child.stdin.take(), output, child }
    }

    fn ask(&mut self, what: &str, times: u64) -> Duration {
        let input = self.input.as_mut().expect("a pipe");
        writeln!(input, "{what} {times}").expect("it listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        Duration::from_nanos(line.trim().parse().expect("nanoseconds"))
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
