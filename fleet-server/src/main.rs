//! `fleet-server`: see `fleet-server --help`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Ten thousand connections are a million small blocks that many threads take and give back: docs/adr/0025.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    sealift_fleet_server::cli::main()
}
