//! Pushes that are cut: by the network, by the server's end. They go on where they were.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use reqwest::{Client, StatusCode};

use super::{NAMESPACE, Suite, header, sha256};

/// Long enough for any loaded machine.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// Bytes after which the server notes how far a push has come.
const PART: usize = 5 << 20;

/// Sends the beginning of a chunk that is announced as longer; the connection stays open as long as the answer is kept.
fn send_some(suite: &Suite, place: &str, announced: usize, bytes: &[u8]) -> TcpStream {
    let address = suite.fleet.endpoints.operator_url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "PATCH {place} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {announced}\r\n\r\n",
        suite.token
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Asks until at least `bytes` have come; the answer is how many have.
async fn until_come(suite: &Suite, place: &str, bytes: usize) -> usize {
    let come = async {
        loop {
            let status = suite.get(place).await;
            assert_eq!(status.status(), StatusCode::NO_CONTENT);
            let last = header(&status, "range").strip_prefix("0-").unwrap();
            let come = last.parse::<usize>().unwrap() + 1;
            if come >= bytes {
                return come;
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, come).await.expect("the bytes that were sent come")
}

async fn go_on(suite: &Suite, place: &str, blob: &[u8], from: usize) {
    let range = format!("{from}-{}", blob.len() - 1);
    let patched = suite.patch(place, &blob[from..], Some(range)).await;
    assert_eq!(patched.status(), StatusCode::ACCEPTED);
    let digest = sha256(blob);
    let put = suite.put_blob(place, &digest, b"").await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let got = suite.get(&format!("/v2/{NAMESPACE}/blobs/{digest}")).await;
    assert!(got.bytes().await.unwrap() == blob, "the blob is not what was sent");
}

#[tokio::test]
async fn a_push_goes_on_after_its_connection_was_cut() {
    let suite = Suite::start();
    let blob: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let place = suite.begin(NAMESPACE).await;

    drop(send_some(&suite, &place, blob.len(), &blob[..40_000]));

    let come = until_come(&suite, &place, 40_000).await;
    assert_eq!(come, 40_000);
    go_on(&suite, &place, &blob, come).await;
}

#[tokio::test]
async fn a_push_goes_on_after_the_server_was_killed() {
    let mut suite = Suite::start();
    let blob: Vec<u8> = (0..=255).cycle().take(PART + 300_000).collect();
    let place = suite.begin(NAMESPACE).await;
    let connection = send_some(&suite, &place, blob.len(), &blob[..PART + 200_000]);
    let noted = until_come(&suite, &place, PART).await;

    suite.fleet.kill_and_restart();
    drop(connection);
    suite.http = Client::new(); // without connections to the server that was

    let come = until_come(&suite, &place, PART).await;
    assert_eq!(come, noted);
    go_on(&suite, &place, &blob, come).await;
}

#[tokio::test]
async fn of_two_who_send_the_same_chunk_one_is_told_so() {
    let suite = Suite::start();
    let place = suite.begin(NAMESPACE).await;
    let chunk = vec![7; 1 << 20];
    let range = || Some(format!("0-{}", chunk.len() - 1));

    let (one, other) =
        tokio::join!(suite.patch(&place, &chunk, range()), suite.patch(&place, &chunk, range()));

    let mut statuses = [one.status(), other.status()];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::ACCEPTED, StatusCode::RANGE_NOT_SATISFIABLE]);
    let put = suite.put_blob(&place, &sha256(&chunk), b"").await;
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn many_push_the_same_blob_at_once() {
    let suite = Suite::start();
    let blob: Vec<u8> = (0..=255).cycle().take(PART + 1).collect();
    let digest = sha256(&blob);
    let mut places = Vec::new();
    for _ in 0..6 {
        places.push(suite.begin(NAMESPACE).await);
    }

    let pushes = places.iter().map(|place| {
        let url = format!("{}{place}?digest={digest}", suite.fleet.endpoints.operator_url);
        suite.http.put(url).bearer_auth(&suite.token).body(blob.clone()).send()
    });
    let answers = futures_util::future::try_join_all(pushes).await.unwrap();

    assert!(answers.iter().all(|answer| answer.status() == StatusCode::CREATED));
    let got = suite.get(&format!("/v2/{NAMESPACE}/blobs/{digest}")).await;
    assert!(got.bytes().await.unwrap() == blob, "the blob is not what was sent");
}
