//! Tensors that cross to the worker in shared memory.

use std::num::NonZeroU8;
use std::time::Duration;

use sealift_agent::worker::RuntimeCandidate;
use sealift_protocol::tensor::Datatype;

use crate::fixtures::{Slot, cpu};
use crate::{golden_of_identities, onnx};

/// Tensors of all sizes at once, small ones through the socket and large ones through shared memory; every fourth asker goes away, and
/// what the worker writes for it must not end up with somebody else.
#[tokio::test]
async fn large_tensors_come_back_to_whoever_sent_them() {
    let sessions = RuntimeCandidate { sessions: NonZeroU8::new(3).unwrap(), ..cpu() };
    let slot = Slot::new(&onnx::identities(), &onnx::contract(), &golden_of_identities());
    let worker = slot.with_candidates(vec![sessions]).worker().await;
    let inputs = |turn: u8| {
        let mut inputs = golden_of_identities().cases[0].inputs.clone();
        let rows = 1_u64 << (u32::from(turn) % 20);
        for tensor in &mut inputs {
            if tensor.datatype == Datatype::Uint8 || tensor.datatype == Datatype::Fp64 {
                let bytes = tensor.datatype.element_bytes().unwrap() * 2;
                tensor.shape = vec![rows, 2];
                tensor.bytes = vec![turn; bytes * usize::try_from(rows).unwrap()];
            }
        }
        inputs
    };

    let asked = (0..80).map(|turn| {
        let (worker, inputs) = (worker.clone(), inputs(turn));
        let asked = async move {
            if turn % 4 == 3 {
                let gone = worker.infer(&inputs);
                let _gone = tokio::time::timeout(Duration::from_millis(turn.into()), gone).await;
                return None;
            }
            Some(worker.infer(&inputs).await)
        };
        tokio::spawn(asked)
    });
    let asked: Vec<_> = asked.collect();

    for (turn, answer) in (0..).zip(asked) {
        let Some(answer) = answer.await.unwrap() else { continue };
        for (output, input) in answer.unwrap().into_iter().zip(inputs(turn)) {
            assert!(output.bytes == input.bytes && output.shape == input.shape, "{}", output.name);
        }
    }
    worker.stop().await;
}
