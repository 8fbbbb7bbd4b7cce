//! The group `ffi`: checks from C compared with the same checks from Rust. The calls from C are
//! made by the program `benches/ffi/calls.c`, which is linked with the shared library. This program
//! requests them over a pipe.

use core::hint::black_box;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use keytally_core::{Timestamp, Verdict};

use crate::measure::{Admitted, BATCH, Bench, Implementation, Table, checks, is_admitted};
use crate::tables::{gate, smallest_limiter};
use crate::traffic::{self, Clock, Order, ROOMY, Walk};

/// The environment variable in which `cargo xtask bench` passes the path of the program in C.
const PROGRAM: &str = "KEYTALLY_BENCH_C";

/// Measures the group.
pub(crate) fn measure(bench: &mut Bench) {
    let Some(program) = std::env::var_os(PROGRAM) else {
        println!("ffi: `cargo xtask bench ffi` builds the program that this group needs");
        return;
    };
    let title = "One subject, one key, by the calling language";
    let about = "An admitted check with its verdict. Rust's verdict computes the values of a window on request. C's struct \
                 contains those of all windows. In the columns `limiter` and `gate`, the processor can begin a call before \
                 the previous call has ended. In turn, the text of each call depends on the previous verdict, as in a \
                 server whose next request has not arrived yet.";
    let mut table = bench.table("ffi/calls", "ns", title, about);
    limiters::<false>(&mut table, "limiter", from_c(&program, "limiter"));
    limiters::<true>(&mut table, "limiter, in turn", from_c(&program, "limiter-in-turn"));
    gates::<false>(&mut table, "gate", from_c(&program, "gate"));
    gates::<true>(&mut table, "gate, in turn", from_c(&program, "gate-in-turn"));
}

// Below, each implementation has its own limiter or gate, and its own clock, which advances with
// each call.

/// Adds a column of checks of one subject. If `IN_TURN`, each call depends on the previous verdict.
fn limiters<const IN_TURN: bool>(table: &mut Table<'_>, column: &str, from_c: Implementation<'_>) {
    let [lazy, whole] = [(); 2].map(|()| smallest_limiter(ROOMY, 1000));
    let text = traffic::text(0);
    let mut call = Call::<IN_TURN>::new(text.as_bytes());
    let lazy = checks("Rust", Admitted::All, || {
        let verdict = lazy.check(call.text(), 1, call.now());
        call.depend_on(&verdict);
        is_admitted(&verdict)
    });
    let mut call = Call::<IN_TURN>::new(text.as_bytes());
    let whole = checks(WHOLE, Admitted::All, || {
        let verdict = whole.check(call.text(), 1, call.now());
        call.depend_on(&verdict);
        is_admitted_by_whole(&verdict)
    });
    table.column(column, vec![whole, from_c, lazy.with_work(LAZY)]);
}

/// Adds a column of checks of one key. If `IN_TURN`, each call depends on the previous verdict.
fn gates<const IN_TURN: bool>(table: &mut Table<'_>, column: &str, from_c: Implementation<'_>) {
    let [(lazy, lazy_keys), (whole, whole_keys)] = [(); 2].map(|()| gate(ROOMY, 64));
    let mut call = Call::<IN_TURN>::new(lazy_keys[0].0.as_bytes());
    let lazy = checks("Rust", Admitted::All, || {
        let verdict = lazy.check(Some(call.text()), 1, call.now());
        call.depend_on(&verdict);
        is_admitted(&verdict)
    });
    let mut call = Call::<IN_TURN>::new(whole_keys[0].0.as_bytes());
    let whole = checks(WHOLE, Admitted::All, || {
        let verdict = whole.check(Some(call.text()), 1, call.now());
        call.depend_on(&verdict);
        is_admitted_by_whole(&verdict)
    });
    table.column(column, vec![whole, from_c, lazy.with_work(LAZY)]);
}

/// The arguments of the next call.
struct Call<'t, const IN_TURN: bool> {
    text: &'t [u8],
    /// The index at which the text begins. It is always 0, but the compiler cannot know that.
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

    /// Makes the next text depend on the verdict. The remaining units never have the highest bit
    /// set, but the processor knows that only after it has computed them.
    #[inline(always)]
    fn depend_on(&mut self, verdict: &Verdict) {
        if IN_TURN {
            self.begin =
                verdict.quotas().get(0).map_or(0, |quota| usize::from(quota.remaining >> 31 != 0));
        }
    }
}

/// The work of a Rust caller that reads only whether the verdict admits.
const LAZY: &str = "no window computed";

/// The row of a Rust caller that reads everything that C's struct contains.
const WHOLE: &str = "Rust, every window computed";

/// Returns whether the verdict admits, after computing everything else that C's struct contains.
#[inline(always)]
fn is_admitted_by_whole(verdict: &Verdict) -> bool {
    for quota in verdict.quotas().iter() {
        black_box(quota);
    }
    let charge = verdict.charge().map(|charge| (charge.cost(), charge.at()));
    black_box((verdict.holder(), verdict.retry_at(), charge));
    is_admitted(verdict)
}

/// Returns the implementation in C. `what` is one of the program's commands.
fn from_c(program: &OsStr, what: &'static str) -> Implementation<'static> {
    let mut calls = Calls::start(program);
    Implementation::new("C, by the shared library", move |batches| calls.run(what, batches))
}

/// The running program in C.
struct Calls {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Calls {
    fn start(program: &OsStr) -> Self {
        let mut command = Command::new(program);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program in C can be started");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { input: child.stdin.take(), output, child }
    }

    /// Requests a number of batches. Returns the average time of a call in each.
    fn run(&mut self, what: &str, batches: usize) -> Vec<f64> {
        let input = self.input.as_mut().expect("a pipe");
        writeln!(input, "{what} {batches} {BATCH}").expect("the program in C reads its input");
        let mut line = String::new();
        let mut next = || -> f64 {
            line.clear();
            self.output.read_line(&mut line).expect("the program in C prints a time");
            let batch_ns: f64 = line.trim().parse().expect("nanoseconds");
            batch_ns / BATCH as f64
        };
        (0..batches).map(|_| next()).collect()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // The program ends at the end of its input.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
