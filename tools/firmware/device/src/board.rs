//! What differs between boards: how the program starts, what counts instructions, how it ends.

use core::fmt;

use crate::{EMPTY, Memory, run};

/// What the program prints, on the console of whoever holds its debug port.
#[derive(Debug)]
pub(crate) struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        semihosting::print!("{text}");
        Ok(())
    }
}

/// Ends the program: 0 when all is well.
pub(crate) fn end(status: i32) -> ! {
    semihosting::process::exit(status)
}

/// Where words are shared, the tables' memory is a `static` that interrupt handlers may use too.
#[cfg(not(feature = "unshared"))]
static MEMORY: Memory = EMPTY;

// Where they are not, it is a `static` of `main` alone, which the runtime hands over as a mutable reference.

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

/// Ticks since some moment. QEMU runs an instruction in a nanosecond of virtual time when it is told to (`-icount shift=0`), and
/// SysTick counts the processor's clock, 24 bits of it.
#[cfg(target_arch = "arm")]
pub(crate) fn ticks() -> u32 {
    // It counts down.
    0x00ff_ffff - cortex_m::peripheral::SYST::get_current()
}

#[cfg(target_arch = "arm")]
fn start_counter() {
    let mut timer = cortex_m::Peripherals::take().expect("taken once").SYST;
    timer.set_clock_source(cortex_m::peripheral::syst::SystClkSource::Core);
    timer.set_reload(0x00ff_ffff);
    timer.clear_current();
    timer.enable_counter();
}

/// RISC-V counts instructions itself.
#[cfg(target_arch = "riscv32")]
pub(crate) fn ticks() -> u32 {
    riscv::register::minstret::read() as u32
}

/// Instructions in so many ticks.
pub(crate) fn instructions(ticks: u32) -> u32 {
    ticks * parsed(env!("KEYTALLY_TICK_NS"))
}

/// A number of the build script's.
const fn parsed(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("no number"),
    }
}
