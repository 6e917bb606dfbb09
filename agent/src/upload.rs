//! Brings something up to the server in parts, from where the server has it: after a cut it goes on there.

use std::io;

use sealift_protocol::limits::UPLOAD_PART_BYTES_MAX;
use sealift_protocol::upload::Upload;

use crate::origin::{Origin, OriginError};

/// The server's word on how far it has something.
const UPLOAD_BYTES_MAX: usize = 1 << 10;

/// Where something goes.
#[derive(Debug)]
pub(crate) struct Destination<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) path: &'a str,
    /// What is said of the whole with each part, such as `digest=…`; may be empty.
    pub(crate) whole: &'a str,
    pub(crate) size: u64,
}

/// Why something is not up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotUp {
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("the server's answer is none")]
    Answer,
    #[error("the server does not go on at byte {0}")]
    Stuck(u64),
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

impl NotUp {
    /// Whether the server has refused with one of these codes.
    pub(crate) fn is_one_of(&self, codes: &[&str]) -> bool {
        match self {
            Self::Origin(error) => error.code().is_some_and(|code| codes.contains(&code)),
            Self::Answer | Self::Stuck(_) | Self::Read(_) => false,
        }
    }
}

impl Destination<'_> {
    /// Sends part after part, from where the server has it. `read` gives at most as many bytes as a part has, from a place on; `told` hears
    /// how far it is.
    pub(crate) async fn bring_up<F: Future<Output = io::Result<Vec<u8>>>>(
        &self,
        read: impl Fn(u64) -> F,
        told: impl Fn(u64),
    ) -> Result<(), NotUp> {
        let mut upload = Upload { offset: 0, is_complete: false };
        if self.size > UPLOAD_PART_BYTES_MAX as u64 {
            let path = format!("{}?{}", self.path, self.query());
            let known = self.origin.get(&path, UPLOAD_BYTES_MAX).await?;
            upload = known.map_or(Ok(upload), |body| parse(&body))?;
        }
        while !upload.is_complete {
            told(upload.offset);
            let part = read(upload.offset).await.map_err(NotUp::Read)?;
            if part.is_empty() {
                return Err(NotUp::Stuck(upload.offset));
            }
            let path = format!("{}?offset={}&{}", self.path, upload.offset, self.query());
            let body = self.origin.put_and_read(&path, part, UPLOAD_BYTES_MAX).await?;
            let now = parse(&body)?;
            // Whoever sends back and forth would have the device send for ever.
            if now.offset <= upload.offset && !now.is_complete {
                return Err(NotUp::Stuck(now.offset));
            }
            upload = now;
        }
        told(self.size);
        Ok(())
    }

    fn query(&self) -> String {
        let between = if self.whole.is_empty() { "" } else { "&" };
        format!("size={}{between}{}", self.size, self.whole)
    }
}

fn parse(body: &[u8]) -> Result<Upload, NotUp> {
    serde_json::from_slice(body).map_err(|_| NotUp::Answer)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::routing::get;
    use axum::{Json, Router};

    use super::*;

    /// More parts than any honest server asks for.
    const PATIENCE: u64 = 20;

    /// Says once that nothing is there and once that much is, and after a while that all of it is.
    fn fickle(turn: &AtomicU64) -> Json<Upload> {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        Json(Upload { offset: turn % 2 * 300_000, is_complete: turn > PATIENCE })
    }

    async fn origin_of(router: Router) -> Origin {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Origin::of_test(&url)
    }

    #[tokio::test]
    async fn attack_a_server_that_sends_back_and_forth_is_given_up() {
        let turns = Arc::new(AtomicU64::new(0));
        let (asked, put) = (Arc::clone(&turns), Arc::clone(&turns));
        let routes =
            get(move || async move { fickle(&asked) }).put(move || async move { fickle(&put) });
        let origin = origin_of(Router::new().route("/x", routes)).await;
        let to = Destination { origin: &origin, path: "/x", whole: "", size: 400_000 };

        let ended = to.bring_up(async |_| Ok(vec![1; 9]), |_| ()).await;

        assert!(matches!(ended, Err(NotUp::Stuck(0))), "{ended:?}");
        assert!(turns.load(Ordering::Relaxed) <= 3);
    }
}
