//! `fleet-server`: see `fleet-server --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sealift_fleet_server::cli::main()
}
