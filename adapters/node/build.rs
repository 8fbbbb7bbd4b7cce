//! Sets the options of the linker that an addon of Node.js needs.

fn main() {
    napi_build::setup();
}
