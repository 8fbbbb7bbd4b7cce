//! The differences between boards: start, tick counter and exit.

use core::fmt;

use crate::{EMPTY, Memory, run};

/// The output of the program by semihosting, on the console of QEMU.
#[derive(Debug)]
pub(crate) struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        semihosting::print!("{text}");
        Ok(())
    }
}

/// Ends the program with a status, 0 on success.
pub(crate) fn end(status: i32) -> ! {
    semihosting::process::exit(status)
}

/// The memory of the tables. With the feature `portable-atomic`, it is a `static`, which interrupt
/// handlers may use, too.
#[cfg(not(feature = "unshared"))]
static MEMORY: Memory = EMPTY;

// With the feature `unshared`, lines are not `Sync`. Then the memory is a `static mut` in `main`,
// to which the attribute `entry` gives `main` the only reference.

#[cfg(target_arch = "arm")]
#[cortex_m_rt::entry]
fn main() -> ! {
    #[cfg(feature = "unshared")]
    static mut MEMORY: Memory = EMPTY;
    #[cfg(feature = "unshared")]
    let memory = MEMORY;
    #[cfg(not(feature = "unshared"))]
    let memory = &MEMORY;
    start_counter();
    run(memory)
}

#[cfg(target_arch = "riscv32")]
#[riscv_rt::entry]
fn main() -> ! {
    run(&MEMORY)
}

/// Returns the tick counter, which is SysTick: 24 bits that count the clock of the processor. With
/// `-icount shift=0`, QEMU runs an instruction per nanosecond of virtual time.
#[cfg(target_arch = "arm")]
pub(crate) fn ticks() -> u32 {
    // SysTick counts down.
    0x00ff_ffff - cortex_m::peripheral::SYST::get_current()
}

#[cfg(target_arch = "arm")]
fn start_counter() {
    let mut timer = cortex_m::Peripherals::take().expect("the peripherals are taken once").SYST;
    timer.set_clock_source(cortex_m::peripheral::syst::SystClkSource::Core);
    timer.set_reload(0x00ff_ffff);
    timer.clear_current();
    timer.enable_counter();
}

/// Returns the tick counter. RISC-V has a counter of instructions.
#[cfg(target_arch = "riscv32")]
pub(crate) fn ticks() -> u32 {
    riscv::register::minstret::read() as u32
}

/// Returns the number of instructions in `ticks`.
pub(crate) fn instructions(ticks: u32) -> u32 {
    ticks * parsed(env!("KEYTALLY_TICK_NS"))
}

/// Parses a number from the build script.
const fn parsed(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("not a number"),
    }
}
