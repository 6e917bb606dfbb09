//! ONNX Runtime in a loop, with the settings of a worker and nothing around it: what the engine alone takes of the processor.
//!
//! `raw_onnxruntime LIBRARY MODEL` prints microseconds of processor time for each run of one row of 64 numbers.

use std::io::Write;

use anyhow::Context;
use ort::session::Session;
use ort::value::Tensor;

const WARM_UP_RUNS: u32 = 2_000;
const RUNS: u32 = 100_000;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let library = arguments.next().context("the library is not given")?;
    let model = arguments.next().context("the model is not given")?;
    let environment = ort::init_from(library)?.with_telemetry(false).build()?;
    let builder = Session::builder(&environment)?;
    let builder = builder.with_intra_threads(1).map_err(ort::Error::<()>::from)?;
    let builder = builder.with_intra_op_spinning(false).map_err(ort::Error::<()>::from)?;
    let mut session = { builder }.commit_from_file(std::path::PathBuf::from(model))?;
    let input = Tensor::from_array(([1_usize, 64], vec![1_f32; 64]))?;
    let mut run = |count: u32| -> anyhow::Result<()> {
        for _ in 0..count {
            session.run(ort::inputs!["pixels" => &input])?;
        }
        Ok(())
    };
    run(WARM_UP_RUNS)?;
    let before = processor_us()?;
    run(RUNS)?;
    let each_us = (processor_us()? - before) / f64::from(RUNS);
    writeln!(std::io::stdout(), "{each_us:.3}")?;
    Ok(())
}

/// What this thread, in which the library runs as well, has had of the processor.
fn processor_us() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = stat.split_whitespace().next().context("no schedstat")?.parse()?;
    Ok(nanoseconds / 1e3)
}
