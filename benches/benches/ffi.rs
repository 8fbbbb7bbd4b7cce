//! The group `ffi`: a call from C against the same call from Rust. The C side is `benches/ffi/calls.c`, a program that is
//! linked with the shared library and asked over a pipe to make so many calls.

use core::hint::black_box;
use core::time::Duration;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use keytally_core::{Timestamp, Verdict};

use crate::measure::{Bench, Contender, Table, Yes, answered, asked};
use crate::tables::{gate, limiter};
use crate::traffic::{self, Clock, Order, ROOMY, Walk};

/// Where `cargo xtask bench` says that the C program is.
const PROGRAM: &str = "KEYTALLY_BENCH_C";

pub(crate) fn measure(bench: &mut Bench) {
    let Some(program) = std::env::var_os(PROGRAM) else {
        println!("ffi: `cargo xtask bench ffi` builds the program that this needs");
        return;
    };
    let title = "One subject, one key, by who calls";
    let about = "A check that is admitted, with its verdict: Rust's, which works a window out when it is read, and the \
                 struct of C, in which all are worked out. In a row, the processor begins a call before the one before has \
                 ended, as far as it can look ahead; in turn, each call's text depends on the result before, as a server's next request has not arrived yet.";
    let mut table = bench.table("ffi/calls", "ns", title, about);
    limiters::<false>(&mut table, "limiter", from_c(&program, "limiter"));
    limiters::<true>(&mut table, "limiter, in turn", from_c(&program, "limiter-in-turn"));
    gates::<false>(&mut table, "gate", from_c(&program, "gate"));
    gates::<true>(&mut table, "gate, in turn", from_c(&program, "gate-in-turn"));
}

// Below, each has a table and a clock of its own, whose time goes on from one call to the next.

fn limiters<const IN_TURN: bool>(table: &mut Table<'_>, column: &str, from_c: Contender<'_>) {
    let [bare, whole] = [(); 2].map(|()| limiter(ROOMY, 1000));
    let text = traffic::text(0);
    let mut call = Call::<IN_TURN>::new(text.as_bytes());
    let bare = asked("Rust", Yes::All, || {
        let verdict = bare.check(call.text(), 1, call.now());
        call.ended(&verdict);
        answered(&verdict)
    });
    let mut call = Call::<IN_TURN>::new(text.as_bytes());
    let whole = asked(WHOLE, Yes::All, || {
        let verdict = whole.check(call.text(), 1, call.now());
        call.ended(&verdict);
        told(&verdict)
    });
    table.column(column, vec![bare, whole, from_c]);
}

fn gates<const IN_TURN: bool>(table: &mut Table<'_>, column: &str, from_c: Contender<'_>) {
    let [(bare, bare_keys), (whole, whole_keys)] = [(); 2].map(|()| gate(ROOMY, 64));
    let mut call = Call::<IN_TURN>::new(bare_keys[0].0.as_bytes());
    let bare = asked("Rust", Yes::All, || {
        let verdict = bare.check(Some(call.text()), 1, call.now());
        call.ended(&verdict);
        answered(&verdict)
    });
    let mut call = Call::<IN_TURN>::new(whole_keys[0].0.as_bytes());
    let whole = asked(WHOLE, Yes::All, || {
        let verdict = whole.check(Some(call.text()), 1, call.now());
        call.ended(&verdict);
        told(&verdict)
    });
    table.column(column, vec![bare, whole, from_c]);
}

/// What the next call is made with.
struct Call<'t, const IN_TURN: bool> {
    text: &'t [u8],
    /// Where the text begins, which is always 0.
    begin: usize,
    clock: Clock,
}

impl<'t, const IN_TURN: bool> Call<'t, IN_TURN> {
    fn new(text: &'t [u8]) -> Self {
        Self { text, begin: 0, clock: Walk::new(1, Order::Uniform).clock() }
    }

    #[inline(always)]
    fn text(&self) -> &'t [u8] {
        &black_box(self.text)[self.begin..]
    }

    #[inline(always)]
    fn now(&mut self) -> Timestamp {
        self.clock.next()
    }

    /// No limit has its highest bit set, but the processor only knows when it has what is left.
    #[inline(always)]
    fn ended(&mut self, verdict: &Verdict) {
        if IN_TURN {
            self.begin = verdict.quotas().get(0).map_or(0, |quota| usize::from(quota.remaining >> 31 != 0));
        }
    }
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
