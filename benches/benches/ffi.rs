//! The group `ffi`: a call from C compared with the same call from Rust. The C side is
//! `benches/ffi/calls.c`, a program that is linked with the shared library and makes a number of
//! calls on request over a pipe.

use core::hint::black_box;
use core::time::Duration;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use keytally_core::{Timestamp, Verdict};

use crate::measure::{Admitted, Bench, Implementation, Table, checks, is_admitted};
use crate::tables::{gate, limiter};
use crate::traffic::{self, Clock, Order, ROOMY, Walk};

/// The variable in which `cargo xtask bench` passes the path of the C program.
const PROGRAM: &str = "KEYTALLY_BENCH_C";

pub(crate) fn measure(bench: &mut Bench) {
    let Some(program) = std::env::var_os(PROGRAM) else {
        println!("ffi: `cargo xtask bench ffi` builds the program that this group needs");
        return;
    };
    let title = "One subject, one key, by the calling language";
    let about = "An admitted check with its verdict. Rust's verdict computes a window on request; C's struct contains all of \
                 them. In a row, the processor begins a call before the one before has ended, as far as it can look \
                 ahead. In turn, the text of each call depends on the verdict before, as in a server whose next request \
                 has not arrived yet.";
    let mut table = bench.table("ffi/calls", "ns", title, about);
    limiters::<false>(&mut table, "limiter", from_c(&program, "limiter"));
    limiters::<true>(&mut table, "limiter, in turn", from_c(&program, "limiter-in-turn"));
    gates::<false>(&mut table, "gate", from_c(&program, "gate"));
    gates::<true>(&mut table, "gate, in turn", from_c(&program, "gate-in-turn"));
}

// Below, each implementation has its own table and clock, whose time advances from one call to the
// next.

fn limiters<const IN_TURN: bool>(table: &mut Table<'_>, column: &str, from_c: Implementation<'_>) {
    let [bare, whole] = [(); 2].map(|()| limiter(ROOMY, 1000));
    let text = traffic::text(0);
    let mut call = Call::<IN_TURN>::new(text.as_bytes());
    let bare = checks("Rust", Admitted::All, || {
        let verdict = bare.check(call.text(), 1, call.now());
        call.ended(&verdict);
        is_admitted(&verdict)
    });
    let mut call = Call::<IN_TURN>::new(text.as_bytes());
    let whole = checks(WHOLE, Admitted::All, || {
        let verdict = whole.check(call.text(), 1, call.now());
        call.ended(&verdict);
        is_admitted_by_whole(&verdict)
    });
    table.column(column, vec![bare, whole, from_c]);
}

fn gates<const IN_TURN: bool>(table: &mut Table<'_>, column: &str, from_c: Implementation<'_>) {
    let [(bare, bare_keys), (whole, whole_keys)] = [(); 2].map(|()| gate(ROOMY, 64));
    let mut call = Call::<IN_TURN>::new(bare_keys[0].0.as_bytes());
    let bare = checks("Rust", Admitted::All, || {
        let verdict = bare.check(Some(call.text()), 1, call.now());
        call.ended(&verdict);
        is_admitted(&verdict)
    });
    let mut call = Call::<IN_TURN>::new(whole_keys[0].0.as_bytes());
    let whole = checks(WHOLE, Admitted::All, || {
        let verdict = whole.check(Some(call.text()), 1, call.now());
        call.ended(&verdict);
        is_admitted_by_whole(&verdict)
    });
    table.column(column, vec![bare, whole, from_c]);
}

/// The arguments of the next call.
struct Call<'t, const IN_TURN: bool> {
    text: &'t [u8],
    /// The start of the text, which is always 0.
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

    /// Makes the next text depend on the verdict. No limit has its highest bit set, but the
    /// processor knows that only after it has computed the remaining units.
    #[inline(always)]
    fn ended(&mut self, verdict: &Verdict) {
        if IN_TURN {
            self.begin =
                verdict.quotas().get(0).map_or(0, |quota| usize::from(quota.remaining >> 31 != 0));
        }
    }
}

/// The row of a Rust caller that reads everything that C's struct contains.
const WHOLE: &str = "Rust, every window worked out";

/// Returns whether the verdict admits, after computing everything else that C's struct contains.
#[inline(always)]
fn is_admitted_by_whole(verdict: &Verdict) -> bool {
    for quota in verdict.quotas().iter() {
        black_box(quota);
    }
    black_box((verdict.holder(), verdict.retry_at(), verdict.charge()));
    is_admitted(verdict)
}

fn from_c(program: &OsStr, what: &'static str) -> Implementation<'static> {
    let mut calls = Calls::new(program);
    ("C, by the shared library", Box::new(move |times| calls.run(what, times)))
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
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { input: child.stdin.take(), output, child }
    }

    fn run(&mut self, what: &str, times: u64) -> Duration {
        let input = self.input.as_mut().expect("a pipe");
        writeln!(input, "{what} {times}").expect("it reads its input");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it reports a time");
        Duration::from_nanos(line.trim().parse().expect("nanoseconds"))
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // The program ends when its input does.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
