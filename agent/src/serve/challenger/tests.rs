//! A device whose model has a new image beside it, as its applications see it.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;

use super::super::testing::{CONTRACT, REQUEST, device, get, live_with, post, send};
use super::super::{Live, Switchboard};
use super::*;

const RULES: Shadow = Shadow { span_s: 60, ..Shadow::OFF };

/// Names of the classes the other way round: what is the likeliest is another, but for the one in the middle.
const REVERSED: &str = r#"{"schema":1,
    "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],
    "outputs":[{"name":"label","datatype":"INT64","shape":[-1],"role":"class"},
               {"name":"p","datatype":"FP32","shape":[-1,3],"role":"probabilities","labels":["c","b","a"]}]}"#;

fn named() -> String {
    REVERSED.replace(r#"["c","b","a"]"#, r#"["a","b","c"]"#)
}

/// Version 3 is live, version 4 beside it.
async fn beside(
    live: &str,
    new: &str,
    rules: Shadow,
) -> (Switchboard, Router, Challenger, Samples) {
    let (board, router) = device(&[]).await;
    let live = live_with(live, "vision/digits", "3").await;
    let model = live.model().clone();
    board.swap(&model, Some(live));
    let new = live_with(new, "vision/digits", "4").await;
    let (challenger, samples) = Challenger::new(new, rules);
    board.challenge(&model, Some(challenger.clone()));
    (board, router, challenger, samples)
}

fn row(number: u32) -> String {
    REQUEST.replace("[1,2]}", &format!("[{number},2]}}"))
}

/// Which version answers.
async fn version(router: &Router, headers: &[(&str, &str)], path: &str, body: String) -> String {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let told = send(router, request.body(Body::from(body)).unwrap()).await;
    assert_eq!(told.status.as_u16(), 200, "{:?}", told.body);
    told.json()["model_version"].as_str().unwrap().to_owned()
}

const INFER: &str = "/v2/models/digits/infer";

async fn compared(challenger: &Challenger, requests: u64) -> ShadowCounts {
    let looked = async {
        loop {
            let counts = challenger.counts();
            if counts.requests + counts.failed + counts.skipped == requests {
                return counts;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), looked).await.unwrap()
}

async fn ask(router: &Router, requests: std::ops::Range<u32>, challenger: &Challenger) {
    for number in requests {
        let before = challenger.counts();
        post(router, INFER, &row(number)).await;
        // One at a time, so that none is skipped.
        let seen = before.requests + before.failed + before.skipped + 1;
        compared(challenger, seen).await;
    }
}

#[tokio::test]
async fn what_applications_ask_is_compared_and_they_get_what_they_always_got() {
    for (new, agrees) in [(named(), true), (REVERSED.to_owned(), false)] {
        let (board, router, challenger, samples) = beside(&named(), &new, RULES).await;
        let (_, alone) = device(&["vision/digits"]).await;
        tokio::spawn(challenger.clone().compare(samples, Captor::default()));

        for number in 0..60 {
            let told = post(&router, INFER, &row(number)).await;
            let expected = post(&alone, INFER, &row(number)).await;
            assert_eq!(told.json()["outputs"], expected.json()["outputs"]);
            assert_eq!(told.json()["model_version"], "3");
            compared(&challenger, u64::from(number) + 1).await;
        }

        let counts = challenger.counts();
        assert_eq!((counts.rows, counts.requests, counts.failed), (60, 60, 0));
        assert_eq!(counts.agreed == counts.rows, agrees, "{counts:?}");
        assert!(counts.agreed < counts.rows || agrees);
        assert_eq!(board.counters().requests, 60, "what is compared is no request of anybody");
    }
}

#[tokio::test]
async fn a_request_that_the_new_image_does_not_take_counts_against_it_alone() {
    let other = CONTRACT.replace("[-1,2]", "[-1,5]");
    let (_, router, challenger, samples) = beside(CONTRACT, &other, RULES).await;
    tokio::spawn(challenger.clone().compare(samples, Captor::default()));

    ask(&router, 0..3, &challenger).await;

    let counts = challenger.counts();
    assert_eq!((counts.rows, counts.agreed, counts.failed, counts.requests), (3, 0, 3, 0));
}

#[tokio::test]
async fn what_finds_no_room_is_skipped_and_applications_do_not_wait() {
    // Nobody reads the queue: a challenger that is stuck.
    let (_, router, challenger, samples) = beside(CONTRACT, CONTRACT, RULES).await;
    for number in 0..10 {
        assert_eq!(version(&router, &[], INFER, row(number)).await, "3");
    }
    assert_eq!(challenger.counts().skipped, 6);

    tokio::spawn(challenger.clone().compare(samples, Captor::default()));
    let counts = compared(&challenger, 10).await;
    assert_eq!((counts.requests, counts.skipped), (4, 6));
    // Beyond its share of the processor it rests.
    challenger.0.rests_until_ms.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(version(&router, &[], INFER, row(0)).await, "3");
    assert_eq!(challenger.counts().skipped, 7);
}

#[tokio::test]
async fn of_the_requests_a_share_is_answered_by_the_new_image_and_says_so() {
    let rules = Shadow { split_permille: 200, ..RULES };
    let (board, router, challenger, samples) = beside(CONTRACT, CONTRACT, rules).await;
    tokio::spawn(challenger.clone().compare(samples, Captor::default()));
    let mut new = 0;
    for number in 0..500 {
        new += u64::from(version(&router, &[], INFER, row(number)).await == "4");
    }
    assert!((70..130).contains(&new), "{new} of 500");
    let counts = challenger.counts();
    assert_eq!((counts.answered, counts.returned), (new, 0));

    let metrics = get(&router, "/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let requests = |version: &str, count: u64| {
        format!(
            "sealift_model_requests_total{{model=\"vision/digits\",version=\"{version}\"}} {count}\n"
        )
    };
    assert!(
        metrics.contains(&requests("4", new)) && metrics.contains(&requests("3", 500 - new)),
        "{metrics}"
    );
    let answered =
        r#"sealift_shadow_requests_total{model="vision/digits",version="4",result="answered"}"#;
    assert!(metrics.contains(&format!("{answered} {new}\n")), "{metrics}");

    // Once it is gone, all is as before.
    board.challenge(challenger.live().model(), None);
    for number in 0..50 {
        assert_eq!(version(&router, &[], INFER, row(number)).await, "3");
    }
}

#[tokio::test]
async fn one_key_is_always_answered_by_one_image_however_it_is_given() {
    let rules = Shadow { split_permille: 300, ..RULES };
    let (_, router, _, _samples) = beside(CONTRACT, CONTRACT, rules).await;
    let mut versions = std::collections::BTreeSet::new();
    for key in (0..40).map(|number| format!("customer-{number}")) {
        let by_header = version(&router, &[("sealift-key", &key)], INFER, row(1)).await;
        let parameter = format!(r#"{{"parameters":{{"sealift_key":"{key}"}},"#);
        let body = row(2).replacen('{', &parameter, 1);
        assert_eq!(version(&router, &[], INFER, body).await, by_header, "{key}");
        assert_eq!(version(&router, &[("Sealift-Key", &key)], INFER, row(3)).await, by_header);
        versions.insert(by_header);
        // Who names a version gets it, or is told that there is none.
        let named = "/v2/models/digits/versions/3/infer";
        assert_eq!(version(&router, &[("sealift-key", &key)], named, row(1)).await, "3");
    }
    assert_eq!(versions.len(), 2);
}

#[tokio::test]
async fn an_image_of_another_form_answers_nobody() {
    let rules = Shadow { split_permille: 500, ..RULES };
    let other = CONTRACT.replace("[-1,3]", "[-1,4]");
    let (_, router, challenger, _samples) = beside(CONTRACT, &other, rules).await;
    for number in 0..40 {
        assert_eq!(version(&router, &[], INFER, row(number)).await, "3");
    }
    assert_eq!(challenger.counts().answered, 0);
    // By newer rules it is asked no more at all.
    challenger.set_rules(RULES);
    assert!(!challenger.is_asked(&live(&challenger), &Split::Each));
}

fn live(challenger: &Challenger) -> Live {
    challenger.live().clone()
}
